"""The outbox: sends what is due, in order for each patient, waits longer after each failure, and sees to the proof.

Sent, accepted and proved are three things (docs/adr/0007, docs/adr/0030). A result whose UID was seen before is simply
sent again: the UIDs are derived, so a destination that has it already has the same object.
"""

import hashlib
import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from appliance.casework.case import Move, move
from appliance.delivery import settling
from appliance.delivery.pacing import Pacing
from appliance.delivery.proving import Prover
from appliance.delivery.settling import ACTOR, what_and_where
from appliance.delivery.store_scu import Caller, NeverDeliverable, NotDelivered, PeerAway, send_files
from appliance.errors import Reason
from appliance.failpoint import failpoint
from appliance.records import Database, Transaction, queries
from appliance.records.tables import CaseState, Delivery, DeliveryState
from appliance.settings import Peer, Settings
from appliance.spool import Spool

Now = Callable[[], datetime]
"""What time it is, for the rows and the trail."""


class Outbox:
    """Moves deliveries along: pending, accepted, committed. One destination is served by one thread at a time."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        spool: Spool,
        pacing: Pacing | None = None,
        caller: Caller | None = None,
    ) -> None:
        delivery = settings.delivery
        self._settings = settings
        self._database = database
        self._spool = spool
        self._pacing = pacing or Pacing(delivery.retry_first_s, delivery.retry_cap_s)
        self._caller = caller or Caller.of(settings, delivery.network_timeout_s)
        self._prover = Prover(settings, database, spool, self._caller, self._pacing)
        longest_s = max(delivery.retry_cap_s, delivery.commitment_wait_s, delivery.sighting_wait_s * 8)
        self._horizon = timedelta(seconds=longest_s + 1)
        self._stopping = threading.Event()
        self._troubled: set[int] = set()

    def sweep(self, now: datetime) -> None:
        """One round, one destination after the other."""
        self.hear(now)
        for destination in self.destinations_due(now):
            self.serve(destination, lambda: now)

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stopping.is_set()

    def stop_soon(self) -> None:
        """Send nothing more after the result that is being sent."""
        self._stopping.set()

    def hang_up(self) -> None:
        """Break off what is being sent; its row stays as it is, and the same object is sent again."""
        self._stopping.set()
        self._caller.hang_up()

    def hear(self, now: datetime) -> None:
        """Take in what destinations have reported."""
        self._prover.hear(now)

    def destinations_due(self, now: datetime) -> list[str]:
        """The destinations for which there is something to do."""
        with self._database.reading() as tx:
            return queries.destinations_due(tx, self._due(now))

    def _due(self, now: datetime) -> queries.Due:
        return queries.Due(now, self._horizon, self._settings.delivery.alarm_attempts)

    def serve(self, destination: str, clock: Now) -> None:
        """Send one destination what is due for it, then ask it about what it accepted; each until the first failure.

        After a failure the destination rests, and is then tried with one result before it gets the others.
        """
        for state, step in ((DeliveryState.PENDING, self._send), (DeliveryState.ACCEPTED, self._ask)):
            name = f"{destination}/{state}"
            rest_s = self._pacing.rest_s(name)
            if rest_s > 0.0:
                self._hold_up(destination, state, rest_s, clock(), "it is waited for")
                continue
            for _ in range(self._settings.delivery.round_limit):
                if self._stopping.is_set() or not self._bring_on(destination, state, step, clock):
                    break

    def _bring_on(
        self,
        destination: str,
        state: DeliveryState,
        step: Callable[[Delivery, Peer, datetime], None],
        clock: Now,
    ) -> bool:
        """Take the next delivery one step on; False when there is none, or it failed."""
        with self._database.reading() as tx:
            delivery = queries.next_delivery(tx, destination, state, self._due(clock()), self._troubled)
        if delivery is None:
            return False
        try:
            step(delivery, self._peer(destination), clock())
        except NotDelivered as problem:
            self._put_off(delivery, problem, clock())
            return False
        self._pacing.succeeded(f"{destination}/{state}")
        self._troubled.discard(delivery.id)
        return True

    def _peer(self, destination: str) -> Peer:
        peer = self._settings.peers.get(destination)
        if peer is None:
            raise NotDelivered("it is no longer in peers.toml; restore it there")
        return peer

    def _send(self, delivery: Delivery, peer: Peer, now: datetime) -> None:
        """Send a result, if it still is what was made.

        Raises:
            NotDelivered: not this time.
        """
        content = self._spool.result(delivery.result.file)
        if content is None or hashlib.sha256(content).hexdigest() != delivery.result.digest:
            self._make_again(delivery, now)
            return
        failpoint("delivery_due")
        try:
            status = send_files(self._caller, peer, [self._spool.root / "results" / delivery.result.file])
        except NeverDeliverable as problem:
            with self._database.transaction() as tx:
                locked = self._still_pending(tx, delivery.id)
                if locked is not None:
                    settling.give_up(tx, locked, self._settings.peers, str(problem), now)
            return
        failpoint("delivery_sent")
        with self._database.transaction() as tx:
            locked = self._still_pending(tx, delivery.id)
            if locked is not None:
                wait = timedelta(seconds=self._settings.delivery.sighting_wait_s)
                settling.accept(tx, locked, self._settings.peers, status, wait, now)
        failpoint("delivery_accepted")

    def _ask(self, delivery: Delivery, peer: Peer, now: datetime) -> None:
        self._prover.ask(delivery, peer, now)

    def _still_pending(self, tx: Transaction, delivery_id: int) -> Delivery | None:
        delivery = queries.delivery_by_id(tx, delivery_id)
        return delivery if delivery is not None and delivery.state is DeliveryState.PENDING else None

    def _make_again(self, delivery: Delivery, now: datetime) -> None:
        """The file is not what was made: while nobody has it, the case is worked on again; else nothing can be done.

        Raises:
            NotDelivered: the case has been delivered, or the file was damaged again and again.
        """
        name = delivery.result.file
        with self._database.transaction() as tx:
            case = queries.case_by_id(tx, delivery.case_id)
            if case is not None and case.state is CaseState.SENDING:
                if case.attempts < self._settings.worker.attempts:
                    fields = what_and_where(delivery)
                    move(tx, case, Move.REMAKE, at=now, actor=ACTOR, **fields)
                    case.rung_at = None
                else:
                    sentence = f"{name} was found damaged again and again; examine the disk, then retry the case"
                    fields = {"reason": Reason.RESULT_INVALID, "sentence": sentence}
                    move(tx, case, Move.FAIL, at=now, actor=ACTOR, attempts=case.attempts, **fields)
                return
        raise NotDelivered(f"{name} is damaged or gone; restore it from a backup, or send the series again")

    def _put_off(self, delivery: Delivery, problem: NotDelivered, now: datetime) -> None:
        """Try this one later, longer after each failure, and let its destination rest meanwhile."""
        name = f"{delivery.destination}/{delivery.state}"
        if isinstance(problem, PeerAway):
            wait_s = rest_s = self._pacing.failed(name, at_least=delivery.attempts)
        else:
            wait_s, rest_s = self._pacing.wait_s(delivery.attempts), self._pacing.failed(name)
            self._troubled.add(delivery.id)  # another goes first next time: it may be this one alone
        with self._database.transaction() as tx:
            locked = queries.delivery_by_id(tx, delivery.id)
            if locked is not None and locked.state is delivery.state:
                alarm_at = self._settings.delivery.alarm_attempts
                settling.postpone(tx, locked, str(problem), wait_s, now, alarm_at=alarm_at)
        sentence = str(problem) if isinstance(problem, PeerAway) else f"held up with another result: {problem}"
        self._hold_up(delivery.destination, delivery.state, rest_s, now, sentence)

    def _hold_up(self, destination: str, state: DeliveryState, rest_s: float, now: datetime, sentence: str) -> None:
        with self._database.transaction() as tx:
            queries.hold_up(tx, destination, state, now + timedelta(seconds=rest_s), self._horizon, sentence)
