"""docs/receiving.md: the figures of `make bench-receive` with what they mean."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

_HEAD = """# Receiving

What it costs to take in CT slices, durably. Written by `make bench-receive ARGS=docs/receiving.md`.

A slice is answered with success when it is on the disk, and not before
([0003](adr/0003-when-c-store-says-success.md), [0025](adr/0025-receive-path.md)). That it is, after kills and power
cuts, is what `tests/faults/test_receive.py` and `tests/faults/test_power_cut.py` try. Here is what it costs beside two
programs that everybody knows: `storescp` of DCMTK, which flushes nothing and may lose what it has acknowledged, and
Orthanc, which flushes in its default (`SyncStorageArea`) and also reads and indexes each slice.

"""


def write_page(path: Path, rows: list[list[str]], *, busy: bool, repetitions: int, on_journal: bool) -> None:
    """Write the page."""
    disk = "a journalled ext4 on a loop device" if on_journal else "the file system of the temporary folder"
    lines = [
        "| server | associations | slices/s | beside storescp | CPU-ms/slice | CPU-ms/slice beside |",
        "|---|---|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    how = (
        f"{os.cpu_count()} cores{', all kept busy by other programs' if busy else ''}, Linux {platform.release()}, "
        f"Python {platform.python_version()}, {_version('storescp')}, Orthanc {_version('Orthanc')}. Slices of "
        f"512 x 512 over loopback by `storescu`, onto {disk}; medians of {repetitions} repetitions in another order "
        "each, ratios within a repetition (least-greatest). CPU time is that of the server with all its processes; "
        "*beside* is our housekeeper, which hands filled slots over, and makes new ones mostly when nothing comes."
    )
    path.write_text(f"{_HEAD}{chr(10).join(lines)}\n\n{how}\n")


def _version(program: str) -> str:
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") or program
    said = subprocess.run([found, "--version"], check=False, capture_output=True, text=True).stdout
    words = said.replace("$", "").split()
    return " ".join(words[1:3]) if program == "storescp" else words[1]
