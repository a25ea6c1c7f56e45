"""Whether processes have ended, whoever's children they are."""

from collections.abc import Iterable

import psutil

from tests.support.waiting import wait_until


def assert_ended(processes: Iterable[psutil.Process], within_s: float) -> None:
    """Every process ends in time; one that only waits for init to take note of it has ended."""
    everything = list(processes)
    wait_until(lambda: all(map(_has_ended, everything)), within_s, f"the end of {everything}")


def _has_ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
