"""Storage commitment as SCP (PS3.4 Annex J): whoever sent to us may ask whether we keep it, and is told the truth.

The listener leaves each request as a note; the answer goes on an association of our own, in the role of SCP (J.3.3).
"Kept" is said of an object whose row, file and content are all as they were when it came, and of nothing else.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum

from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage
from pynetdicom import build_role
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance  # type: ignore[attr-defined]

from appliance.audit import trail
from appliance.delivery.pacing import Pacing
from appliance.delivery.settling import ACTOR
from appliance.delivery.store_scu import UNCOMPRESSED, Caller, NeverDeliverable, NotDelivered
from appliance.dicom.uid import is_valid_uid
from appliance.failpoint import failpoint
from appliance.records import Database, queries
from appliance.records.tables import InstanceState
from appliance.settings import Peer, Settings
from appliance.spool import Note, Spool
from appliance.spool.holdings import is_intact

NOTE_KIND = "commitment_asked"
"""What the listener calls its notes: transaction_uid, caller, and asked, a list of SOP Class and Instance UIDs."""

ANSWER_WITHIN = timedelta(days=7)
"""A caller that cannot be reached for so long is not told any more; it may ask again."""

SETTLED_AFTER = timedelta(seconds=10)
"""Only then is an object said to be unknown: it may have been answered with success and still lie in its slot."""

_ALL_KEPT, _SOME_LOST = 1, 2
"""Event type IDs, PS3.4 Table J.3.3-1."""


class FailureReason(IntEnum):
    """Why an object is not kept, PS3.3 §C.14.1.1."""

    PROCESSING_FAILURE = 0x0110
    NO_SUCH_OBJECT = 0x0112
    CLASS_INSTANCE_CONFLICT = 0x0119


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: under which transaction, by whom, about which SOP Class and SOP Instance UIDs.

    What is no UID is left out, and so neither kept nor lost: it could not be repeated in a report.
    """

    transaction_uid: str
    caller: str
    instances: tuple[tuple[str, str], ...]
    at: datetime

    @classmethod
    def of(cls, note: Note) -> "Asked":
        """What a note of the listener says."""
        listed = note.fields["asked"]
        pairs = listed if isinstance(listed, list) else []
        named = [(str(sop_class), str(uid)) for sop_class, uid in pairs]
        instances = tuple(pair for pair in named if all(map(is_valid_uid, pair)))
        return cls(str(note.fields["transaction_uid"]), str(note.fields["caller"]), instances, note.at)


class Voucher:
    """Answers requests for storage commitment, one after another."""

    def __init__(self, settings: Settings, database: Database, spool: Spool, caller: Caller, pacing: Pacing) -> None:
        self._peers = {peer.ae_title: peer for peer in settings.peers.values()}
        self._database = database
        self._spool = spool
        self._caller = caller
        self._pacing = pacing

    def waiting(self) -> dict[str, list[Note]]:
        """Requests that can be answered now, by caller.

        Those are left for later whose caller could not be reached a moment ago, and those that came when objects
        which had come before them are durable, but not indexed yet.
        """
        oldest = self._spool.arrivals(1)
        waiting: dict[str, list[Note]] = {}
        for note in self._spool.notes(NOTE_KIND):
            if self._pacing.rest_s(note.path.name) == 0.0 and not (oldest and oldest[0].at <= note.at):
                waiting.setdefault(str(note.fields["caller"]), []).append(note)
        return waiting

    def answer(self, note: Note, now: datetime) -> bool:
        """Answer one request, or leave it a note; False when the caller cannot be reached."""
        asked = Asked.of(note)
        peer = self._peers.get(asked.caller)
        if peer is None or not is_valid_uid(asked.transaction_uid) or not asked.instances:
            self._drop(note, asked, "it is not in peers.toml, or what it asked names nothing by UID", now)
            return True
        verdicts = {pair: self._verdict(*pair) for pair in asked.instances}
        if FailureReason.NO_SUCH_OBJECT in verdicts.values() and now < asked.at + SETTLED_AFTER:
            self._pacing.failed(note.path.name)
            return True
        try:
            _report(self._caller, peer, asked.transaction_uid, verdicts)
        except (NotDelivered, NeverDeliverable) as problem:
            if now - asked.at > ANSWER_WITHIN:
                self._drop(note, asked, str(problem), now)
            else:
                self._pacing.failed(note.path.name)
            return False
        failpoint("commitment_answered")
        kept = sum(reason is None for reason in verdicts.values())
        with self._database.transaction() as tx:
            trail.record(
                tx,
                "commitment_answered",
                at=now,
                actor=ACTOR,
                caller=asked.caller,
                transaction_uid=asked.transaction_uid,
                kept=kept,
                count=len(verdicts),
            )
        self._forget(note)
        return True

    def _verdict(self, sop_class: str, sop_instance_uid: str) -> FailureReason | None:
        """None when the object is kept."""
        with self._database.reading() as tx:
            rows = queries.instances_named(tx, sop_instance_uid)
        states = {row.state for row in rows}
        if InstanceState.CONFLICT in states or states == {InstanceState.QUARANTINED}:
            return FailureReason.PROCESSING_FAILURE
        there = [row for row in rows if row.state is not InstanceState.QUARANTINED and row.removed_at is None]
        if not there:
            return FailureReason.NO_SUCH_OBJECT
        if sop_class != CTImageStorage:  # we accept no other class, so whatever is here is a CT
            return FailureReason.CLASS_INSTANCE_CONFLICT
        intact = all(self._is_intact(row.digest) for row in there)
        return None if intact else FailureReason.PROCESSING_FAILURE

    def _is_intact(self, digest: str) -> bool:
        try:
            return is_intact(self._spool.instance_path(digest), digest)
        except OSError:
            return False

    def _drop(self, note: Note, asked: Asked, sentence: str, now: datetime) -> None:
        with self._database.transaction() as tx:
            trail.record(tx, "commitment_unanswered", at=now, actor=ACTOR, caller=asked.caller, sentence=sentence)
        self._forget(note)

    def _forget(self, note: Note) -> None:
        self._pacing.succeeded(note.path.name)
        note.path.unlink(missing_ok=True)


def _report(
    caller: Caller, peer: Peer, transaction_uid: str, verdicts: dict[tuple[str, str], FailureReason | None]
) -> None:
    """N-EVENT-REPORT on an association of its own.

    Raises:
        NotDelivered: the caller is away, or did not take the report.
        NeverDeliverable: it does not take reports on associations of ours.
    """
    ae = caller.application_entity()
    ae.add_requested_context(StorageCommitmentPushModel, UNCOMPRESSED)
    association = caller.associate(ae, peer, roles=[build_role(StorageCommitmentPushModel, scp_role=True)])
    report, event_type = _event_information(transaction_uid, verdicts)
    try:
        status, _ = association.send_n_event_report(
            report, event_type, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
    except (RuntimeError, ValueError) as error:
        raise NotDelivered(f"the association broke while reporting ({error})") from error
    finally:
        if association.is_established:
            association.release()
    if status.get("Status") != 0x0000:
        raise NotDelivered(f"the report was answered 0x{status.get('Status', 0xFFFF):04X}")


def _event_information(
    transaction_uid: str, verdicts: dict[tuple[str, str], FailureReason | None]
) -> tuple[Dataset, int]:
    """What is told, and the event type ID (PS3.4 Table J.3.3-1)."""
    report = Dataset()
    report.TransactionUID = transaction_uid
    kept = [_item(pair) for pair, reason in verdicts.items() if reason is None]
    lost = [_item(pair, reason) for pair, reason in verdicts.items() if reason is not None]
    if kept:
        report.ReferencedSOPSequence = Sequence(kept)
    if lost:
        report.FailedSOPSequence = Sequence(lost)
    return report, _SOME_LOST if lost else _ALL_KEPT


def _item(pair: tuple[str, str], reason: FailureReason | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = pair
    if reason is not None:
        item.FailureReason = int(reason)
    return item
