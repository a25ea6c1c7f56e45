"""From accepted to proved: storage commitment where a destination offers it, a sighting by C-FIND where it does not."""

from datetime import datetime, timedelta

from pydicom.uid import UID, RTStructureSetStorage, SegmentationStorage

from appliance.audit import trail
from appliance.delivery.commitment import request_commitment
from appliance.delivery.pacing import Pacing
from appliance.delivery.settling import ACTOR, prove, send_again, what_and_where
from appliance.delivery.sighting import inquiring
from appliance.delivery.store_scu import Caller, series_of_file
from appliance.dicom.uid import derive_uid, is_valid_uid
from appliance.failpoint import failpoint
from appliance.records import Database, Transaction, queries
from appliance.records.tables import NEVER, Delivery, DeliveryState, Proof, ResultKind
from appliance.settings import Peer, Settings
from appliance.spool import Spool

NOTE_KIND = "commitment"
LOOKS = 3
"""How often a result is looked for in vain before it is sent again: a PACS may show what it stored with some delay."""

_SOP_CLASSES: dict[ResultKind, UID] = {
    ResultKind.RTSTRUCT: RTStructureSetStorage,
    ResultKind.SEG: SegmentationStorage,
}


class Prover:
    """Asks destinations for proof that they keep what they accepted, and hears what they report."""

    def __init__(self, settings: Settings, database: Database, spool: Spool, caller: Caller, pacing: Pacing) -> None:
        self._settings = settings
        self._database = database
        self._spool = spool
        self._caller = caller
        self._pacing = pacing

    def ask(self, delivery: Delivery, peer: Peer, now: datetime) -> None:
        """Ask one destination about one result that it accepted.

        Raises:
            NotDelivered: it cannot be asked now.
        """
        if peer.storage_commitment:
            self._request(delivery, peer, now)
        elif peer.query:
            self._look(delivery, peer, now)
        else:
            with self._database.transaction() as tx:
                locked = self._still_accepted(tx, delivery.id)
                if locked is not None:
                    locked.next_try_at = NEVER

    def hear(self, now: datetime) -> None:
        """Take in the storage commitment reports that have come."""
        for note in self._spool.notes(NOTE_KIND):
            with self._database.transaction() as tx:
                self._take_in(tx, note.fields, now)
            note.path.unlink()

    def _still_accepted(self, tx: Transaction, delivery_id: int) -> Delivery | None:
        delivery = queries.delivery_by_id(tx, delivery_id)
        return delivery if delivery is not None and delivery.state is DeliveryState.ACCEPTED else None

    def _request(self, delivery: Delivery, peer: Peer, now: datetime) -> None:
        """Under a fresh transaction UID, noted before it is sent so that no answer is missed."""
        wait = timedelta(seconds=self._settings.delivery.commitment_wait_s)
        result = delivery.result
        transaction_uid = derive_uid("commitment", result.sop_instance_uid, delivery.destination, now.isoformat())
        with self._database.transaction() as tx:
            locked = self._still_accepted(tx, delivery.id)
            if locked is None:
                return
            locked.commitment_uid, locked.next_try_at = transaction_uid, now + wait
            fields = {**what_and_where(locked), "transaction_uid": transaction_uid}
            trail.record(tx, "commitment_requested", at=now, actor=ACTOR, case_id=locked.case_id, **fields)
        failpoint("commitment_noted")
        request_commitment(
            self._caller,
            peer,
            (_SOP_CLASSES[result.kind], result.sop_instance_uid),
            transaction_uid,
            on_report=lambda fields: self._spool.leave_note(NOTE_KIND, fields),
        )
        failpoint("commitment_asked")

    def _look(self, delivery: Delivery, peer: Peer, now: datetime) -> None:
        """Look for the result there; after `LOOKS` in vain it is sent again."""
        series_uid = series_of_file(self._spool.root / "results" / delivery.result.file)
        with inquiring(self._caller, peer) as inquiry:
            there = inquiry.has(delivery.case.study_instance_uid, series_uid, delivery.result.sop_instance_uid)
        failpoint("delivery_looked_for")
        with self._database.transaction() as tx:
            locked = self._still_accepted(tx, delivery.id)
            if locked is None:
                return
            if there:
                prove(tx, locked, self._settings.peers, Proof.SIGHTING, now)
                return
            locked.unseen += 1
            if locked.unseen >= LOOKS:
                sentence = f"it was looked for there {LOOKS} times by C-FIND and not found"
                wait_s = self._pacing.wait_s(locked.attempts)
                send_again(tx, locked, "delivery_unseen", sentence, wait_s, now)
            else:
                wait = timedelta(seconds=self._settings.delivery.sighting_wait_s)
                locked.next_try_at, locked.sentence = now + wait * 2**locked.unseen, "not yet seen there by C-FIND"

    def _take_in(self, tx: Transaction, report: dict[str, object], now: datetime) -> None:
        transaction_uid = str(report["transaction_uid"])
        delivery = queries.delivery_by_commitment(tx, transaction_uid) if is_valid_uid(transaction_uid) else None
        if delivery is None or delivery.state is not DeliveryState.ACCEPTED:
            return
        kept = report["kept"]
        if isinstance(kept, list) and delivery.result.sop_instance_uid in kept:
            prove(tx, delivery, self._settings.peers, Proof.COMMITMENT, now)
        else:
            sentence = f"its report does not list the {delivery.result.kind.in_words} as kept"
            send_again(tx, delivery, "commitment_failed", sentence, self._pacing.wait_s(delivery.attempts), now)
