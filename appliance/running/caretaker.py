"""The caretaker: what has to be done from time to time, each duty in a thread of its own; none waits for another.

A duty that fails is tried again at its next time; a database that is away ends the process, as it does the others.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog

from appliance.clock import now_utc
from appliance.errors import ApplianceError
from appliance.records.session import DatabaseUnavailable

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


class Caretaker:
    """Sees to all duties until it is told to stop."""

    def __init__(self, duties: Sequence[Duty]) -> None:
        self._duties = duties
        self._gave_up: list[DatabaseUnavailable] = []

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set.

        Raises:
            DatabaseUnavailable: the database went away; whoever supervises starts again.
        """
        threads = [
            threading.Thread(target=self._see_to, args=(duty, stop), name=duty.name, daemon=True)
            for duty in self._duties
        ]
        for thread in threads:
            thread.start()
        stop.wait()
        for thread in threads:
            thread.join(timeout=2.0)
        if self._gave_up:
            raise self._gave_up[0]

    def _see_to(self, duty: Duty, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                duty.work(now_utc())
            except DatabaseUnavailable as away:
                self._gave_up.append(away)
                stop.set()
            except (ApplianceError, OSError) as problem:
                log.warning("duty_failed", duty=duty.name, error=type(problem).__name__, words=str(problem))
            stop.wait(duty.every_s)
