"""A worker's hold on a case: taken, renewed with every sign of progress, given back, or lost.

The lease is a row, not a lock: a worker that dies simply stops renewing, and the reconciler gives the case to
another. A worker that was only slow finds its lease gone at the next renewal and stops without writing: every write
checks who holds the case and the number of the lease, which grows each time that the case is taken.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from appliance.audit import trail
from appliance.casework.case import Move, move
from appliance.clock import monotonic_s, now_utc
from appliance.errors import ApplianceError, Reason
from appliance.records import Database, Transaction, queries
from appliance.records.tables import Case, CaseState

RENEW_EVERY_S = 0.5
"""Progress is written at most this often; the lease itself is far longer."""

More: TypeAlias = Callable[[Transaction], dict[str, Any]]
"""What else is to be said of some progress; asked only when it is written, in the same transaction."""


class LeaseLost(ApplianceError):
    """Another worker, an operator or a newer revision has taken the case."""


class WorkerStopping(ApplianceError):
    """The worker was asked to stop; the case goes back to the queue."""


class Lease:
    """One worker's hold on one case.

    Attributes:
        number: of this lease among all that there were on the case; 0 until it is taken.
        on_step: told of every sign of progress, also of those that are not written.
    """

    def __init__(
        self, database: Database, case_id: int, worker: str, lease_s: float, should_stop: Callable[[], bool]
    ) -> None:
        self.case_id = case_id
        self.worker = worker
        self._database = database
        self._length = timedelta(seconds=lease_s)
        self._should_stop = should_stop
        self._renewed_at_s = 0.0
        self.number = 0
        self.on_step: Callable[[str, int, int], None] = lambda *_: None

    def take(self) -> bool:
        """Claim the case; False when it is not waiting, which makes doubled or late doorbells harmless."""
        now = now_utc()
        with self._database.transaction() as tx:
            case = queries.case_by_id(tx, self.case_id)
            if case is None or case.state is not CaseState.QUEUED:
                return False
            case.attempts += 1
            case.leases += 1
            case.progress = {}
            fields = {"worker": self.worker, "attempt": case.attempts}
            move(tx, case, Move.START, at=now, actor=self.worker, **fields)
            case.lease_owner, case.lease_until = self.worker, now + self._length
            self.number = case.leases
        return True

    def renew(self) -> None:
        """Hold the case for longer, whatever is or is not being done.

        Raises:
            LeaseLost: the case is not ours any more.
        """
        with self.held() as (_, case, now):
            case.lease_until = now + self._length

    def progress(self, step: str, done: int, total: int, more: More = lambda _: {}) -> None:
        """Say how far the work is, and renew the lease.

        Args:
            step: what is being done.
            done: how much of it is done.
            total: of how much.
            more: what else there is to say.

        Raises:
            LeaseLost: the case is not ours any more.
            WorkerStopping: the worker is being shut down.
        """
        self.on_step(step, done, total)
        if self._should_stop():
            raise WorkerStopping
        if done < total and monotonic_s() - self._renewed_at_s < RENEW_EVERY_S:
            return
        with self.held() as (tx, case, now):
            case.lease_until = now + self._length
            case.progress = {"step": step, "done": done, "total": total, **more(tx)}
        self._renewed_at_s = monotonic_s()

    @contextmanager
    def held(self) -> Iterator[tuple[Transaction, Case, datetime]]:
        """A transaction on the case that is only open while the lease is ours.

        Raises:
            LeaseLost: the case is not ours any more; nothing is written.
        """
        with self._database.transaction() as tx:
            case = queries.case_by_id(tx, self.case_id)
            if case is None or not self.is_on(case):
                raise LeaseLost
            yield tx, case, now_utc()

    def is_on(self, case: Case) -> bool:
        """Whether the case is held by this very lease: not by another worker, nor by this one a second time."""
        mine = case.lease_owner == self.worker and case.leases == self.number
        return mine and case.state is CaseState.SEGMENTING


def hand_back(
    database: Database, case_id: int, worker: str, sentence: str, *, attempts_allowed: int, stopped: bool
) -> None:
    """Give back the case that a worker holds, if it does; that somebody stopped the worker is not held against it."""
    with database.transaction() as tx:
        case = queries.case_by_id(tx, case_id)
        if case is not None and case.state is CaseState.SEGMENTING and case.lease_owner == worker:
            case.attempts -= stopped
            give_back(tx, case, sentence, attempts_allowed=attempts_allowed, at=now_utc(), actor=worker)


def give_back(tx: Transaction, case: Case, sentence: str, *, attempts_allowed: int, at: datetime, actor: str) -> None:
    """Queue a case again whose worker was lost or failed, or park it when that happened too often."""
    if case.attempts < attempts_allowed:
        move(tx, case, Move.LOSE, at=at, actor=actor, worker=case.lease_owner or "", sentence=sentence)
        case.rung_at = None
    else:
        attempts = case.attempts
        move(tx, case, Move.FAIL, at=at, actor=actor, reason=Reason.WORKER_LOST, attempts=attempts, sentence=sentence)
        alarm = f"case {case.id} was parked after {attempts} attempts, the last of which ended so: {sentence}"
        trail.record(tx, "alarm_raised", at=at, actor=actor, case_id=case.id, sentence=alarm)
