"""A clock that a test moves."""

from dataclasses import dataclass
from datetime import datetime

from appliance.delivery.outbox import Outbox
from appliance.delivery.pacing import Pacing
from tests.support.rows import NOON


@dataclass
class Hands:
    """Its hands, in seconds since noon."""

    seconds: float = 0.0

    def pacing(self, first_s: float, cap_s: float) -> Pacing:
        """Waits by these hands, each as long as it may be."""
        return Pacing(first_s, cap_s, ticking=lambda: self.seconds, draw=lambda: 1.0)

    def sweep(self, outbox: Outbox, now: datetime) -> None:
        """One round at this time, which both clocks show."""
        self.seconds = (now - NOON).total_seconds()
        outbox.sweep(now)
