"""Whether processes have ended, whoever's children they are."""

from collections.abc import Iterable
from contextlib import suppress

import psutil

from tests.support.waiting import wait_until


def assert_ended(processes: Iterable[psutil.Process], within_s: float) -> None:
    """Every process ends in time; one that only waits for init to take note of it has ended."""
    everything = list(processes)
    wait_until(lambda: all(map(_has_ended, everything)), within_s, f"the end of {everything}")


def kill_with_children(pid: int) -> None:
    """Kill a process and all that it started, the youngest first: what a wrapper runs does not end with the wrapper."""
    parent = psutil.Process(pid)
    for process in [*reversed(parent.children(recursive=True)), parent]:
        kill_if_there(process)


def kill_if_there(process: psutil.Process) -> None:
    """Kill it, unless it has ended already."""
    with suppress(psutil.NoSuchProcess):
        process.kill()


def _has_ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
