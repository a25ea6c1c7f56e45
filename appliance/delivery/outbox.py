"""The outbox: sends what is due, waits longer after each failure, and moves the case when every destination has it.

Sent, accepted and committed are three things (docs/adr/0007). A result whose UID was seen before is simply sent again:
the UIDs are derived, so a destination that has it already has the same object.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from pydicom.uid import RTStructureSetStorage, SegmentationStorage

from appliance.audit import trail
from appliance.casework.case import Move, move
from appliance.delivery.commitment import request_commitment
from appliance.delivery.store_scu import Caller, NeverDeliverable, NotDelivered, send_files
from appliance.dicom.uid import derive_uid, is_valid_uid
from appliance.errors import Reason
from appliance.records import Database, Transaction, queries
from appliance.records.tables import Case, CaseState, Delivery, DeliveryState, Result, ResultKind
from appliance.settings import Peer, Settings
from appliance.spool import Spool

ACTOR = "deliverer"
NOTE_KIND = "commitment"
_MAX_DOUBLINGS = 16
_NEVER = datetime(9999, 1, 1, tzinfo=UTC)
"""An accepted delivery whose destination offers no commitment is not due again."""
_SOP_CLASSES = {ResultKind.RTSTRUCT: RTStructureSetStorage, ResultKind.SEG: SegmentationStorage}


class Outbox:
    """Moves deliveries along: pending, accepted, committed."""

    def __init__(self, settings: Settings, database: Database, spool: Spool) -> None:
        self._settings = settings
        self._database = database
        self._spool = spool
        self._caller = Caller.of(settings, settings.delivery.network_timeout_s)

    def sweep(self, now: datetime) -> None:
        """One round: hear what was committed, then send or ask what is due."""
        self._hear_reports(now)
        with self._database.reading() as tx:
            due = [(row.id, row.state, row.destination, row.result) for row in queries.due_deliveries(tx, now)]
        failing: set[str] = set()
        for delivery_id, state, destination, result in due:
            if destination in failing:
                continue  # once a round is enough: a peer that hangs must not keep the others waiting
            try:
                self._attempt(delivery_id, state, destination, result, now)
            except NotDelivered as problem:
                failing.add(destination)
                self._postpone(delivery_id, str(problem), now)

    def _attempt(self, delivery_id: int, state: DeliveryState, destination: str, result: Result, now: datetime) -> None:
        """Send what is pending, or ask for commitment to what was accepted.

        Raises:
            NotDelivered: not this time.
        """
        peer = self._settings.peers.get(destination)
        if peer is None:
            raise NotDelivered("it is no longer in peers.toml; restore it there")
        if state is DeliveryState.PENDING:
            self._send(delivery_id, peer, result, now)
        else:
            self._ask(delivery_id, peer, result, now)

    def _send(self, delivery_id: int, peer: Peer, result: Result, now: datetime) -> None:
        try:
            status = send_files(self._caller, peer, [self._spool.root / "results" / result.file])
        except NeverDeliverable as problem:
            self._give_up(delivery_id, str(problem), now)
        else:
            self._accept(delivery_id, peer, status, now)

    def _accept(self, delivery_id: int, peer: Peer, status: str, now: datetime) -> None:
        with self._database.transaction() as tx:
            delivery = queries.delivery_by_id(tx, delivery_id)
            if delivery is None or delivery.state is not DeliveryState.PENDING:
                return
            delivery.state, delivery.sentence = DeliveryState.ACCEPTED, None
            delivery.next_try_at = now if peer.storage_commitment else _NEVER
            fields = {**_what_and_where(delivery), "status": status}
            trail.record(tx, "delivery_accepted", at=now, actor=ACTOR, case_id=delivery.case_id, **fields)
            self._settle_case(tx, delivery.case, now)

    def _ask(self, delivery_id: int, peer: Peer, result: Result, now: datetime) -> None:
        """Ask for commitment under a fresh transaction UID, noted before it is sent so that no answer is missed."""
        wait = timedelta(seconds=self._settings.delivery.commitment_wait_s)
        with self._database.transaction() as tx:
            delivery = queries.delivery_by_id(tx, delivery_id)
            if delivery is None or delivery.state is not DeliveryState.ACCEPTED:
                return
            transaction_uid = derive_uid("commitment", result.sop_instance_uid, delivery.destination, now.isoformat())
            delivery.commitment_uid, delivery.next_try_at = transaction_uid, now + wait
            fields = {**_what_and_where(delivery), "transaction_uid": transaction_uid}
            trail.record(tx, "commitment_requested", at=now, actor=ACTOR, case_id=delivery.case_id, **fields)
        request_commitment(
            self._caller,
            peer,
            (_SOP_CLASSES[result.kind], result.sop_instance_uid),
            transaction_uid,
            on_report=lambda fields: self._spool.leave_note(NOTE_KIND, fields),
        )

    def _hear_reports(self, now: datetime) -> None:
        for note in self._spool.notes(NOTE_KIND):
            with self._database.transaction() as tx:
                self._hear(tx, note.fields, now)
            note.path.unlink()

    def _hear(self, tx: Transaction, report: dict[str, object], now: datetime) -> None:
        transaction_uid = str(report["transaction_uid"])
        delivery = queries.delivery_by_commitment(tx, transaction_uid) if is_valid_uid(transaction_uid) else None
        if delivery is None or delivery.state is not DeliveryState.ACCEPTED:
            return
        kept = report["kept"]
        if isinstance(kept, list) and delivery.result.sop_instance_uid in kept:
            delivery.state, delivery.sentence = DeliveryState.COMMITTED, None
            event, fields = "commitment_reported", _what_and_where(delivery)
        else:
            wait_s = self._wait_s(delivery.attempts)
            delivery.attempts += 1
            delivery.state, delivery.next_try_at = DeliveryState.PENDING, now + timedelta(seconds=wait_s)
            event, fields = (
                "commitment_failed",
                {
                    **_what_and_where(delivery),
                    "sentence": f"its report does not list the {delivery.result.kind.in_words} as kept",
                },
            )
        trail.record(tx, event, at=now, actor=ACTOR, case_id=delivery.case_id, **fields)
        self._settle_case(tx, delivery.case, now)

    def _postpone(self, delivery_id: int, sentence: str, now: datetime) -> None:
        with self._database.transaction() as tx:
            delivery = queries.delivery_by_id(tx, delivery_id)
            if delivery is None:
                return
            wait_s = self._wait_s(delivery.attempts)
            delivery.attempts += 1
            delivery.next_try_at, delivery.sentence = now + timedelta(seconds=wait_s), sentence
            fields = {**_what_and_where(delivery), "sentence": sentence, "wait_s": wait_s}
            trail.record(tx, "delivery_tried", at=now, actor=ACTOR, case_id=delivery.case_id, **fields)

    def _wait_s(self, attempts: int) -> float:
        """Twice as long after each failure, up to the cap."""
        delivery = self._settings.delivery
        return float(min(delivery.retry_cap_s, delivery.retry_first_s * 2 ** min(attempts, _MAX_DOUBLINGS)))

    def _give_up(self, delivery_id: int, sentence: str, now: datetime) -> None:
        with self._database.transaction() as tx:
            delivery = queries.delivery_by_id(tx, delivery_id)
            if delivery is None:
                return
            delivery.state, delivery.sentence = DeliveryState.REFUSED, sentence
            fields = {**_what_and_where(delivery), "sentence": sentence}
            trail.record(tx, "delivery_refused", at=now, actor=ACTOR, case_id=delivery.case_id, **fields)
            self._settle_case(tx, delivery.case, now)

    def _settle_case(self, tx: Transaction, case: Case, now: datetime) -> None:
        """Move the case when the last of its deliveries has come far enough.

        A destination that takes no Segmentation gets the structure set alone, and that is enough.
        """
        tx.flush()
        every = queries.deliveries_of(tx, case)
        deliveries = [
            delivery
            for delivery in every
            if delivery.state is not DeliveryState.REFUSED or delivery.result.kind is ResultKind.RTSTRUCT
        ]
        if any(delivery.state is DeliveryState.PENDING for delivery in deliveries):
            return
        refused = [delivery for delivery in deliveries if delivery.state is DeliveryState.REFUSED]
        if refused and case.state is CaseState.SENDING:
            sentence = f"{refused[0].destination} will not take the structure set: {refused[0].sentence}"
            fields = {"reason": Reason.DESTINATION_REFUSES, "sentence": sentence}
            move(tx, case, Move.FAIL, at=now, actor=ACTOR, attempts=case.attempts, **fields)
            return
        names = ", ".join(dict.fromkeys(delivery.destination for delivery in deliveries))
        if case.state is CaseState.SENDING:
            move(tx, case, Move.DELIVER, at=now, actor=ACTOR, destinations=names)
        if case.state is CaseState.DELIVERED and self._all_committed(deliveries):
            move(tx, case, Move.COMMIT, at=now, actor=ACTOR, destinations=names)

    def _all_committed(self, deliveries: Sequence[Delivery]) -> bool:
        committing = [
            delivery
            for delivery in deliveries
            if (peer := self._settings.peers.get(delivery.destination)) is not None and peer.storage_commitment
        ]
        return bool(committing) and all(delivery.state is DeliveryState.COMMITTED for delivery in committing)


def _what_and_where(delivery: Delivery) -> dict[str, str]:
    """What every event of a delivery tells."""
    return {"object": delivery.result.kind.in_words, "destination": delivery.destination}
