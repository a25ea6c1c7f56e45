"""For how long nothing has changed, told by a clock that nobody can set.

The wall clock may jump by a day, and rows hold only its stamps. So silence is measured from when this process saw the
last change; after a restart it starts again, and a series is complete a quiet time later rather than too early.
"""

from collections.abc import Callable, Collection, Hashable

from appliance.clock import monotonic_s


class Quiet:
    """Remembers what things looked like, and since when.

    Args:
        steady: seconds that never step back.
    """

    def __init__(self, steady: Callable[[], float] = monotonic_s) -> None:
        self._steady = steady
        self._known_until_s = steady()
        self._seen: dict[Hashable, tuple[Hashable, float]] = {}

    def round_begins(self, waiting_age_s: float | None) -> None:
        """Say how far the past is known: what arrived and is not indexed yet may belong to any series.

        A backlog holds nobody up for longer than it takes to index it, and a busy sender does not hold up the series
        of others.

        Args:
            waiting_age_s: age of the oldest arrival that is not indexed, by the wall clock; None when there is none.
        """
        now_s = self._steady()
        if waiting_age_s is None:
            self._known_until_s = now_s
        elif waiting_age_s >= 0.0:  # else the clock was set back since, and its age is not known
            self._known_until_s = max(self._known_until_s, now_s - waiting_age_s)

    def unchanged_s(self, key: Hashable, looks: Hashable) -> float:
        """Seconds for which the thing called `key` has looked like this; negative while nobody can tell."""
        seen = self._seen.get(key)
        if seen is None or seen[0] != looks:
            seen = self._seen[key] = (looks, self._steady())
        return self._known_until_s - seen[1]

    def forget_others(self, keys: Collection[Hashable]) -> None:
        """Keep only what is still looked at."""
        self._seen = {key: seen for key, seen in self._seen.items() if key in keys}
