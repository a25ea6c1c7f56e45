"""What should be going on is in the rows; the reconciler makes it so again after anything was lost."""

from collections.abc import Callable
from datetime import datetime, timedelta

from appliance.casework.lease import give_back
from appliance.records import Database, queries
from appliance.settings import Settings

ACTOR = "reconciler"
RING_AGAIN_AFTER = timedelta(seconds=30)
"""A queued case whose doorbell brought nobody is rung for again; doubled doorbells are harmless."""


class Reconciler:
    """Rings for queued cases and takes cases back from workers that fell silent."""

    def __init__(self, settings: Settings, database: Database, ring: Callable[[int], bool]) -> None:
        self._settings = settings
        self._database = database
        self._ring = ring

    def sweep(self, now: datetime) -> None:
        """One round."""
        self._take_back(now)
        with self._database.reading() as tx:
            waiting = [case.id for case in queries.cases_to_ring(tx, now, RING_AGAIN_AFTER)]
        for case_id in waiting:
            if not self._ring(case_id):
                return
            with self._database.transaction() as tx:
                case = queries.case_by_id(tx, case_id)
                if case is not None:
                    case.rung_at = now

    def _take_back(self, now: datetime) -> None:
        with self._database.transaction() as tx:
            for case in queries.cases_with_expired_lease(tx, now):
                sentence = f"no progress for {self._settings.worker.lease_s:.0f} s"
                allowed = self._settings.worker.attempts
                give_back(tx, case, sentence, attempts_allowed=allowed, at=now, actor=ACTOR)
