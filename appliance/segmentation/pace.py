"""How long the rest of some work will take, judged by what is done."""

MIN_DONE = 3
"""The first runs warm up caches and memory; they say little about those that follow."""

MIN_SHARE = 0.02
"""Nor does less than a fiftieth of the work."""


def time_left_s(done: int, total: int, elapsed_s: float) -> float | None:
    """Estimate how many seconds the rest takes; None while it is too early to say.

    Args:
        done: pieces of about equal cost that are done.
        total: all of them.
        elapsed_s: seconds since the first one was begun.
    """
    if done >= total:
        return 0.0
    if done < max(MIN_DONE, MIN_SHARE * total) or elapsed_s <= 0:
        return None
    return elapsed_s / done * (total - done)


def in_words(seconds: float) -> str:
    """A rough time for people: no more exact than an estimate is, such as "40 s", "3 min" or "1 h 20 min"."""
    if seconds < 55:
        return f"{max(5, 5 * round(seconds / 5))} s"
    minutes = max(1, round(seconds / 60))
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"
