"""The caretaker: what has to be done from time to time, each duty in a thread of its own; none waits for another.

A duty that fails is tried again at its next time; a database that is away ends the process, as it does the others, and
so does a failure that nobody foresaw.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog

from appliance.clock import monotonic_s, now_utc
from appliance.errors import ApplianceError
from appliance.records.session import DatabaseUnavailable

STOP_WITHIN_S = 2.0
"""Duties that are at work for longer when the process stops are left behind; each is written so that it may be."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Duty:
    """Something that is to be done again and again.

    Attributes:
        name: for the log.
        every_s: seconds between the end of one round and the next.
        work: one round, given the time; it looks itself whether something is due, and is quick when nothing is.
    """

    name: str
    every_s: float
    work: Callable[[datetime], object]


class DutyBroke(ApplianceError):
    """A duty failed in a way that nobody foresaw; whoever supervises notes it and starts again."""


class Caretaker:
    """Sees to all duties until it is told to stop."""

    def __init__(self, duties: Sequence[Duty]) -> None:
        self._duties = duties
        self._gave_up: list[DatabaseUnavailable] = []
        self._stopped: set[str] = set()

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; a duty that is at work then is waited for, but not for long.

        Raises:
            DatabaseUnavailable: the database went away; whoever supervises starts again.
            DutyBroke: a duty failed in a way that nobody foresaw; likewise.
        """
        threads = [
            threading.Thread(target=self._see_to, args=(duty, stop), name=duty.name, daemon=True)
            for duty in self._duties
        ]
        for thread in threads:
            thread.start()
        stop.wait()
        deadline_s = monotonic_s() + STOP_WITHIN_S
        for thread in threads:
            thread.join(timeout=max(0.0, deadline_s - monotonic_s()))
        if self._gave_up:
            raise self._gave_up[0]
        broken = [thread.name for thread in threads if not thread.is_alive() and thread.name not in self._stopped]
        if broken:
            raise DutyBroke(f"{', '.join(broken)} failed in a way that nobody foresaw; see the log")

    def _see_to(self, duty: Duty, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                _work(duty)
                stop.wait(duty.every_s)
            self._stopped.add(duty.name)
        except DatabaseUnavailable as away:
            self._gave_up.append(away)
        finally:
            stop.set()  # however it ended: a duty that nobody sees to any more must not go unnoticed


def _work(duty: Duty) -> None:
    try:
        duty.work(now_utc())
    except DatabaseUnavailable:
        raise
    except (ApplianceError, OSError) as problem:
        log.warning("duty_failed", duty=duty.name, error=type(problem).__name__, words=str(problem))
