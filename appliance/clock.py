"""The only place that reads a clock; everything else is handed the time, so that tests own it."""

import time
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
