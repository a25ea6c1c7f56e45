"""How long to wait after failures: twice as long each time, part of it by chance, up to a cap, on a clock of its own.

Rows say in the world's time when something is due, so that people and a restarted process can read it. What was tried
by this process is timed here on a clock that never steps back: a wall clock that jumps by a day neither lets
everything out at once nor holds anything up for a day.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from secrets import SystemRandom

from appliance.clock import monotonic_s

_MAX_DOUBLINGS = 16


@dataclass
class Pacing:
    """The waits of one process, by the name of whatever failed (a destination, a caller who is to be answered).

    Attributes:
        first_s: the longest wait after the first failure.
        cap_s: the longest wait of all.
        ticking: seconds on a clock that never steps back.
        draw: chance, from 0 to 1; it spreads waits over the upper half of their length.
    """

    first_s: float
    cap_s: float
    ticking: Callable[[], float] = monotonic_s
    draw: Callable[[], float] = SystemRandom().random
    _failures: dict[str, int] = field(default_factory=dict)
    _rests_until_s: dict[str, float] = field(default_factory=dict)

    def wait_s(self, failures: int) -> float:
        """Seconds to wait after so many failures before this one."""
        longest_s = min(self.cap_s, self.first_s * float(2 ** min(failures, _MAX_DOUBLINGS)))
        return longest_s * (1.0 + self.draw()) / 2.0

    def failed(self, name: str, at_least: int = 0) -> float:
        """Let `name` rest after a failure; returns for how many seconds.

        Args:
            name: what failed.
            at_least: failures before this one that are known otherwise, such as from before a restart.
        """
        before = max(self._failures.get(name, 0), at_least)
        self._failures[name] = before + 1
        wait_s = self.wait_s(before)
        self._rests_until_s[name] = self.ticking() + wait_s
        return wait_s

    def succeeded(self, name: str) -> None:
        """Forget the failures of `name`."""
        self._failures.pop(name, None)
        self._rests_until_s.pop(name, None)

    def rest_s(self, name: str) -> float:
        """Seconds for which `name` still rests; 0 when it may be tried."""
        return max(0.0, self._rests_until_s.get(name, 0.0) - self.ticking())
