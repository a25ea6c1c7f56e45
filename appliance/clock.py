"""The only place that reads a clock; everything else is handed the time, so that tests own it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime


def now_utc() -> datetime:
    """The current time, timezone-aware, in UTC."""
    return datetime.now(UTC)


def monotonic_s() -> float:
    """Seconds on a clock that never steps back; only differences mean anything."""
    return time.monotonic()


def epoch_ns() -> int:
    """Nanoseconds since 1970, for names that sort by time; never for durations."""
    return time.time_ns()


@dataclass
class Effort:
    """What a piece of work cost this process, all its threads counted."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def fields(self) -> dict[str, float]:
        """For an audit event or a log line."""
        return {"seconds": round(self.seconds, 3), "cpu_s": round(self.cpu_seconds, 3)}


@contextmanager
def measured(effort: Effort) -> Iterator[None]:
    """Add what the block costs to `effort`."""
    began_s, began_cpu_s = time.monotonic(), time.process_time()
    try:
        yield
    finally:
        effort.seconds += time.monotonic() - began_s
        effort.cpu_seconds += time.process_time() - began_cpu_s
