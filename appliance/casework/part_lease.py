"""A worker's hold on one model's part of a case: like the lease of a case, on a row of its own.

Whoever waits for a part takes it over once its lease has run out; nothing else has to notice that a worker died.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from appliance.audit import trail
from appliance.casework.asking import Asked
from appliance.casework.lease import RENEW_EVERY_S, WorkerStopping
from appliance.casework.part_rows import is_free, put_back
from appliance.casework.workbench import Workbench
from appliance.clock import monotonic_s, now_utc
from appliance.errors import ApplianceError
from appliance.records import Transaction, queries
from appliance.records.tables import CaseState, Part, PartState


class PartLost(ApplianceError):
    """Another worker has taken the part over, or nobody needs it any more."""


class PartLease:
    """One worker's hold on one part.

    Attributes:
        file: where the result of the part is to lie, by the scan and the model that the lead has; known once taken.
    """

    def __init__(self, bench: Workbench, case_id: int, model: str) -> None:
        self.case_id, self.model = case_id, model
        self.file = ""
        self._bench = bench
        self._length = timedelta(seconds=bench.settings.worker.lease_s)
        self._renewed_at_s = 0.0
        self._attempt = 0

    def take(self) -> bool:
        """Claim the part; False when nobody needs it, somebody is at it or it is done."""
        now, worker = now_utc(), self._bench.worker
        with self._bench.database.transaction() as tx:
            part = queries.part_of(tx, self.case_id, self.model)
            if part is None or not is_free(part, now):
                return False
            case = queries.case_by_id(tx, self.case_id)
            if case is None or case.state is not CaseState.SEGMENTING:
                return False
            about: dict[str, Any] = {"at": now, "actor": worker, "case_id": self.case_id, "model": self.model}
            if part.state is PartState.WORKING:
                silent = f"no progress for {self._length.total_seconds():.0f} s"
                trail.record(tx, "part_lost", worker=part.lease_owner or "", sentence=silent, **about)
            part.state, part.lease_owner, part.lease_until = PartState.WORKING, worker, now + self._length
            part.attempts += 1
            part.progress = {}
            self._attempt = part.attempts
            self.file = part.file
            trail.record(tx, "part_taken", worker=worker, attempt=part.attempts, **about)
        return True

    def progress(self, fields: dict[str, Any]) -> None:
        """Say how far the work is, and renew the lease; written now and then only.

        Raises:
            PartLost: the part is not ours any more, or nobody needs it.
            WorkerStopping: the worker is being shut down.
        """
        self._bench.on_step("segment" if fields else "load", fields.get("done", 0), fields.get("total", 0))
        if self._bench.should_stop():
            raise WorkerStopping
        if monotonic_s() - self._renewed_at_s < RENEW_EVERY_S:
            return
        with self._held() as (_, part, now):
            part.lease_until = now + self._length
            part.progress = fields
        self._renewed_at_s = monotonic_s()

    def planned(self, words: str) -> None:
        """Leave the event of a plan for the memory.

        Raises:
            PartLost: the part is not ours any more, or nobody needs it.
        """
        with self._held() as (tx, _, now):
            words = f"{self.model}: {words}"
            trail.record(tx, "memory_planned", at=now, actor=self._bench.worker, case_id=self.case_id, words=words)

    def finish(self, asked: Asked, fields: dict[str, Any]) -> None:
        """The result is durable: say so, with the model's event.

        Raises:
            PartLost: the part is not ours any more, or nobody needs it.
        """
        with self._held() as (tx, part, now):
            part.state, part.progress = PartState.DONE, fields
            part.lease_owner = part.lease_until = None
            asked.note(tx, at=now, actor=self._bench.worker, case_id=self.case_id)

    def let_go(self) -> None:
        """Leave the part to others, unless it is done or theirs already."""
        with self._bench.database.transaction() as tx:
            part = queries.part_of(tx, self.case_id, self.model)
            if part is not None and self._is_on(part):
                put_back(part)

    @contextmanager
    def _held(self) -> Iterator[tuple[Transaction, Part, datetime]]:
        with self._bench.database.transaction() as tx:
            part = queries.part_of(tx, self.case_id, self.model)
            if part is None or not self._is_on(part):
                raise PartLost
            case = queries.case_by_id(tx, self.case_id)
            if case is None or case.state not in {CaseState.SEGMENTING, CaseState.QUEUED}:  # queued: its lead died
                raise PartLost
            yield tx, part, now_utc()

    def _is_on(self, part: Part) -> bool:
        """Whether the part is held by this very lease: not by another worker, nor by this one a second time."""
        mine = part.lease_owner == self._bench.worker and part.attempts == self._attempt
        return mine and part.state is PartState.WORKING
