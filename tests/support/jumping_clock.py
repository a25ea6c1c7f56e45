"""A box whose wall clock jumps while it runs: everything reads it in appliance/clock.py, so that is where it is moved.

libfaketime would do it from outside, but fails `time.sleep` as soon as the steady clock is to stay as it is.
"""

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

_AT_START = """
import datetime, pathlib, time, types
import appliance.clock

OFFSET = pathlib.Path({path!r})

def offset_s():
    return float(OFFSET.read_text())

class Jumping(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.now(tz) + datetime.timedelta(seconds=offset_s())

appliance.clock.datetime = Jumping
appliance.clock.time = types.SimpleNamespace(
    **{{**vars(time), "time_ns": lambda: time.time_ns() + int(offset_s()) * 10**9}}
)
"""


def jumping_clock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], None]:
    """Let every Python process that is started from here on read a clock that goes wrong by what the answer is told."""
    folder.mkdir()
    offset = folder / "offset"

    def jump(by: timedelta) -> None:
        beside = folder / "offset.new"
        beside.write_text(str(by.total_seconds()))
        beside.rename(offset)

    jump(timedelta())
    (folder / "sitecustomize.py").write_text(_AT_START.format(path=str(offset)))
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(root), os.environ.get("PYTHONPATH", "")]))
    return jump
