"""Places where a test may make a process die, hang or run out of memory; they do nothing in production.

A test names a folder of traps in `DELINEATE_TRAPS`. A file there with the name of a place springs once: it is removed,
and what it says happens.
"""

import os
import signal
import threading
from pathlib import Path

TRAPS = "DELINEATE_TRAPS"
"""The environment variable that names the folder; production never sets it."""


def failpoint(place: str) -> None:
    """Do what the trap at `place` says, if there is one: `kill`, `hang` or `eat` (memory, until somebody ends it)."""
    folder = os.environ.get(TRAPS)
    if folder is None:
        return
    trap = Path(folder) / place
    try:
        what = trap.read_text().strip()
        trap.unlink()
    except FileNotFoundError:
        return
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "hang":
        threading.Event().wait()
    if what == "eat":
        eaten = []
        while True:
            eaten.append(bytearray(b"\1") * (64 << 20))
