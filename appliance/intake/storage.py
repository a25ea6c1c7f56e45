"""What the listener does with requests: C-STORE, and both sides of storage commitment.

C-STORE success means kept: the data set's bytes are durable on disk before 0x0000 leaves (docs/adr/0003). Nothing
is parsed here, and receiving needs neither database nor broker; what else must be remembered is left as a note.
"""

import struct
import threading
from dataclasses import dataclass
from io import BytesIO

import structlog
from pydicom import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom.dsutils import decode
from pynetdicom.sop_class import CTImageStorage, StorageCommitmentPushModel  # type: ignore[attr-defined]

from appliance.clock import monotonic_s
from appliance.dicom.commitment_report import commitment_report
from appliance.dicom.uid import MAX_UID_LENGTH, is_valid_uid
from appliance.intake import command_set as cs
from appliance.intake.command_set import Command
from appliance.intake.reports import Reports
from appliance.intake.seen import Seen
from appliance.settings.box import IntakeSettings
from appliance.spool import Buffer, Discarded, Entry, SlotPool, Spool
from appliance.spool.file_meta import file_meta
from appliance.spool.slots import FILLED

SUCCESS, OUT_OF_RESOURCES, WRONG_CLASS, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xA900, 0xC000
"""C-STORE statuses, PS3.4 Table B.2-1."""

DUPLICATE_INSTANCE, NO_SUCH_CLASS, PROCESSING_FAILURE = 0x0111, 0x0118, 0x0110
NO_SUCH_ACTION, INVALID_ARGUMENT, RESOURCE_LIMITATION = 0x0123, 0x0115, 0x0213
"""Statuses of PS3.7 Annex C."""

MOST_ASKED = 20_000
"""Instances in one request for commitment; more is no scan of a patient."""

_REQUEST_COMMITMENT = 1
_HAND_OVER_S, _LOOK_EVERY_S = 10.0, 0.02
_UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)
"""What pydicom raises on a data set that is none."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Caller:
    """The peer of an association."""

    calling_ae: str
    called_ae: str
    address: str


@dataclass(frozen=True, slots=True)
class Means:
    """What an association works with; shared by all of them."""

    settings: IntakeSettings
    spool: Spool
    pool: SlotPool
    seen: Seen
    reports: Reports


class StorageScp:
    """Answers what one peer asks on one association."""

    def __init__(self, means: Means, caller: Caller) -> None:
        self.stored = 0
        self._means = means
        self._caller = caller
        self.buffer = Buffer()

    def begin(self, command: Command, context_class: str, syntax: str) -> tuple[Entry, int, str]:
        """Where the data set of a C-STORE goes; the status if it is refused already, and why."""
        status, sentence = self._objection(command, context_class)
        if status not in {SUCCESS, CANNOT_UNDERSTAND}:
            return Discarded(self.buffer), status, sentence
        uid = command.uid(cs.AFFECTED_INSTANCE)[:MAX_UID_LENGTH]
        meta = file_meta(CTImageStorage, uid, syntax, self._caller.calling_ae, self._caller.called_ae)
        try:
            return self._means.spool.begin(self.buffer, meta, self._means.pool), status, sentence
        except OSError as error:
            return Discarded(self.buffer), OUT_OF_RESOURCES, _disk_refused(error)

    def finish(self, entry: Entry, command: Command, syntax: str, verdict: tuple[int, str]) -> int:
        """Make a whole data set durable, then say what to answer."""
        status, sentence = verdict
        if not isinstance(entry, Discarded):
            try:
                entry.keep()
            except OSError as error:
                status, sentence = OUT_OF_RESOURCES, _disk_refused(error)
        uid = command.uid(cs.AFFECTED_INSTANCE)
        if status == SUCCESS and self._means.seen.came_otherwise(uid, syntax, entry.digest):
            status = DUPLICATE_INSTANCE
            sentence = "it came before with other content; both are kept, find out at the sender which is right"
        if status == SUCCESS:
            self.stored += 1
        else:
            self.refuse(status, sentence)
        return status

    def refuse(self, status: int, sentence: str) -> None:
        """Have it noted that an object is not answered with success."""
        text = f"0x{status:04X}"
        log.warning("object_refused", status=text)
        fields = {"source_ae": self._caller.calling_ae, "status": text, "sentence": sentence}
        self._means.reports.report("object_refused", address=self._caller.address, kind=text, **fields)

    def note_report(self, encoded: bytes, syntax: str) -> int:
        """PS3.4 J.3.3: what the destination of a result says about keeping it."""
        try:
            report = commitment_report(_data_set(encoded, syntax))
        except _UNREADABLE:
            return PROCESSING_FAILURE
        return self._leave("commitment", report)

    def note_asked(self, command: Command, encoded: bytes, syntax: str) -> int:
        """PS3.4 J.3.2: a sender wants us to commit to what it sent; the deliverer answers, from the rows."""
        if command.uid(cs.REQUESTED_CLASS) != StorageCommitmentPushModel:
            return NO_SUCH_CLASS
        if command.number(cs.ACTION_TYPE) != _REQUEST_COMMITMENT:
            return NO_SUCH_ACTION
        try:
            asked = _data_set(encoded, syntax)
            transaction = str(asked.get("TransactionUID", ""))
            instances = [
                [str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID)]
                for item in asked.get("ReferencedSOPSequence", [])
            ]
        except _UNREADABLE:
            return PROCESSING_FAILURE
        if len(instances) > MOST_ASKED:
            return RESOURCE_LIMITATION
        if not instances or not all(map(is_valid_uid, [transaction, *(uid for pair in instances for uid in pair)])):
            return INVALID_ARGUMENT
        self._await_hand_over()
        caller = self._caller.calling_ae
        return self._leave("commitment_asked", {"transaction_uid": transaction, "caller": caller, "asked": instances})

    def _await_hand_over(self) -> None:
        """Let what was kept so far be in the queue, so that whoever looks for it after the note finds it."""
        until_s = monotonic_s() + _HAND_OVER_S
        while self._means.pool.numbers(FILLED) and monotonic_s() < until_s:
            threading.Event().wait(_LOOK_EVERY_S)

    def _leave(self, kind: str, fields: dict[str, object]) -> int:
        try:
            self._means.spool.leave_note(kind, fields)
        except OSError:
            log.exception("note_lost", note=kind)
            return PROCESSING_FAILURE
        return SUCCESS

    def _objection(self, command: Command, context_class: str) -> tuple[int, str]:
        if not is_valid_uid(command.uid(cs.AFFECTED_INSTANCE)):
            return CANNOT_UNDERSTAND, "the SOP Instance UID is not a valid UID; correct it at the sender"
        if command.uid(cs.AFFECTED_CLASS) != context_class or context_class != CTImageStorage:
            return WRONG_CLASS, "its SOP class is not that of its presentation context; correct it at the sender"
        if self._means.spool.free_mb() < self._means.settings.free_space_reserve_mb:
            sentence = "the spool has less free space than its reserve; free some and send again"
            return OUT_OF_RESOURCES, sentence
        return SUCCESS, ""


def _disk_refused(error: OSError) -> str:
    return f"the spool could not keep it ({error.strerror}); send it again"


def _data_set(encoded: bytes, syntax: str) -> Dataset:
    return decode(BytesIO(encoded), syntax == ImplicitVRLittleEndian, is_little_endian=True)
