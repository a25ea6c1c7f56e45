"""DCMTK's programs; in an active virtual environment pynetdicom puts scripts of the same names in front of them."""

import os
import shutil
from pathlib import Path

PATH = os.pathsep.join(
    folder for folder in os.environ["PATH"].split(os.pathsep) if not (Path(folder).parent / "pyvenv.cfg").is_file()
)
"""Where programs are looked for that are not Python's."""

STORESCU, ECHOSCU = shutil.which("storescu", path=PATH), shutil.which("echoscu", path=PATH)
WHY_NOT = None if STORESCU and ECHOSCU else "NOT run: DCMTK is not installed"
