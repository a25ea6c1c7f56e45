"""The demo as a newcomer runs it, but for the installation."""

import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]


def test_the_demo_takes_a_phantom_through_the_whole_line_and_proves_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "appliance", "demo", "--folder", str(tmp_path / "demo")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for words in (
        "Sending by C-STORE: 100 of 100",
        "Quiet time",
        "queued for a worker",
        "Fold 1 of the ensemble",
        "Fold 3 of the ensemble",
        "Structures traced as contours",
        "RTSTRUCT accepted",
        "RTSTRUCT committed",
        "Audit trail of case 1",
    ):
        assert words in done.stdout, words
    for roi in ("External", "Bladder", "Rectum", "Prostate", "Femur_L", "Femur_R", "Bone_Pelvic", "Sacrum", "Bowel"):
        assert roi in done.stdout
    assert len(list((tmp_path / "demo" / "pacs").glob("*.dcm"))) == 1
    with Image.open(tmp_path / "demo" / "contours.png") as picture:
        assert picture.width > 1000
