"""Which DICOM audit messages (PS3.15 A.5.3) an event of the trail makes: none, one or several."""

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ImplicitVRLittleEndian

from appliance.audit.message_xml import AuditMessage, Code, Contents, EventObject, Outcome, Participant
from appliance.audit.trail import words_of
from appliance.records.tables import ResultKind
from appliance.settings import Settings

log = structlog.get_logger()

_ACTIVITY = Code("110100", "Application Activity")
_LOG_USED = Code("110101", "Audit Log Used")
_BEGIN = Code("110102", "Begin Transferring DICOM Instances")
_ACCESSED = Code("110103", "DICOM Instances Accessed")
_TRANSFERRED = Code("110104", "DICOM Instances Transferred")
_QUERY = Code("110112", "Query")
_ALERT = Code("110113", "Security Alert")

_START, _STOP = Code("110120", "Application Start"), Code("110121", "Application Stop")
_NODE_AUTHENTICATION = Code("110126", "Node Authentication")
_SOFTWARE = Code("110131", "Software Configuration")

_APPLICATION, _LAUNCHER = Code("110150", "Application"), Code("110151", "Application Launcher")
_DESTINATION, _SOURCE = Code("110152", "Destination Role ID"), Code("110153", "Source Role ID")

_PATIENT_NUMBER = Code("2", "Patient Number", "RFC-3881")
_URI = Code("12", "URI", "RFC-3881")
_STUDY_UID = Code("110180", "Study Instance UID")
_SOP_CLASS_UID = Code("110181", "SOP Class UID")
_NODE_ID = Code("110182", "Node ID")

_PERSON, _SYSTEM_OBJECT = "1", "2"
_PATIENT, _REPORT, _SECURITY_RESOURCE = "1", "3", "13"
"""Participant Object Type Codes and Roles."""

_STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
_SOP_CLASSES = {
    ResultKind.RTSTRUCT.in_words: "1.2.840.10008.5.1.4.1.1.481.3",
    ResultKind.SEG.in_words: "1.2.840.10008.5.1.4.1.1.66.4",
}


@dataclass(frozen=True, slots=True)
class CaseFacts:
    """What messages tell of a case: whose study it is and where its results go; no name."""

    patient_id: str
    study_instance_uid: str
    series_instance_uid: str
    accession_number: str
    source_ae: str
    slices: int
    destinations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Happening:
    """One event of the trail with what is known of its case; `seq` is its number."""

    seq: int
    at: datetime
    event: str
    actor: str
    fields: dict[str, Any]
    case: CaseFacts | None


class MessageWriter:
    """Makes messages in the name of this box."""

    def __init__(self, settings: Settings) -> None:
        self.station = settings.appliance.station_name
        self._own_title = settings.intake.ae_title
        self._peers = settings.peers
        self._hosts = {peer.ae_title: peer.host for peer in settings.peers.values()}
        self._host = socket.gethostname()

    def messages_of(self, happening: Happening) -> Sequence[AuditMessage]:
        """The messages of one event; none of one that lacks what they need, which no release has recorded."""
        make = _MAKERS.get(happening.event)
        try:
            return [] if make is None else make(self, happening)
        except (KeyError, TypeError) as lack:
            log.exception("no_message", seq=happening.seq, kind=happening.event, error=type(lack).__name__)
            return []

    def outcome(self, happening: Happening, outcome: Outcome) -> dict[str, Any]:
        """What every message says of how it went; failures say it in words, too."""
        words = words_of(happening.event, happening.fields) if outcome else ""
        return {"at": happening.at, "outcome": outcome, "words": words}

    def this_box(self, actor: str, role: Code | None = None, *, requestor: bool = False) -> Participant:
        """A process of this box."""
        return Participant(actor, role, requestor, self._own_title, self._host)

    def node(self, ae_title: str, role: Code | None = None, *, requestor: bool = False) -> Participant:
        """Another DICOM node; its address where peers.toml has it."""
        return Participant(ae_title, role, requestor, ae_title, self._hosts.get(ae_title, ""))

    def destination(self, name: str) -> Participant:
        """A peer that we call, by its name in peers.toml; it may be there no more."""
        peer = self._peers.get(name)
        title, host = (peer.ae_title, peer.host) if peer is not None else ("", "")
        return Participant(name, _DESTINATION, ae_title=title, address=host)

    def log_object(self) -> EventObject:
        """PS3.15 A.5.3.2: the audit log itself."""
        name = "Security Audit Log"
        uri = f"urn:delineate:{self.station}:audit-trail"
        return EventObject(uri, _URI, _SYSTEM_OBJECT, _SECURITY_RESOURCE, name)

    def alert_subject(self, node: str, words: str) -> EventObject:
        """PS3.15 A.5.3.11: what the alert is about."""
        details = (("Alert Description", words),)
        return EventObject(node, _NODE_ID, _SYSTEM_OBJECT, _SECURITY_RESOURCE, node, details=details)

    @property
    def own_node(self) -> str:
        """This machine, as subject of an alert."""
        return self._host


def _study_and_patient(case: CaseFacts, sop_class_uid: str, instances: int) -> tuple[EventObject, EventObject]:
    contents = Contents(sop_class_uid, instances, case.accession_number)
    study = EventObject(case.study_instance_uid, _STUDY_UID, _SYSTEM_OBJECT, _REPORT, contents=contents)
    # images without a Patient ID are taken; the message must name somebody
    patient = EventObject(case.patient_id or "unknown", _PATIENT_NUMBER, _PERSON, _PATIENT)
    return study, patient


_Maker = Callable[[MessageWriter, Happening], Sequence[AuditMessage]]


def _activity(kind: Code, outcome: Outcome) -> _Maker:
    """PS3.15 A.5.3.1."""

    def make(writer: MessageWriter, happening: Happening) -> Sequence[AuditMessage]:
        process = writer.this_box(happening.fields["process"], _APPLICATION)
        launcher = [writer.this_box(happening.actor, _LAUNCHER)] if happening.actor != process.user else []
        said = writer.outcome(happening, outcome)
        return [AuditMessage(_ACTIVITY, "E", participants=[process, *launcher], kind=kind, **said)]

    return make


def _received(action: str) -> _Maker:
    """PS3.15 A.5.3.7, as the receiver: C what is new, R what was held already."""

    def make(writer: MessageWriter, happening: Happening) -> Sequence[AuditMessage]:
        if happening.case is None:
            return []
        source = writer.node(happening.case.source_ae, _SOURCE, requestor=True)
        participants = [source, writer.this_box(happening.actor, _DESTINATION)]
        objects = _study_and_patient(happening.case, CT_IMAGE_STORAGE, happening.fields["count"])
        said = writer.outcome(happening, Outcome.SUCCESS)
        return [AuditMessage(_TRANSFERRED, action, participants=participants, objects=objects, **said)]

    return make


def _sent(outcome: Outcome) -> _Maker:
    """PS3.15 A.5.3.7, as the sender, who does not know what the receiver held: R."""

    def make(writer: MessageWriter, happening: Happening) -> Sequence[AuditMessage]:
        if happening.case is None:
            return []
        source = writer.this_box(happening.actor, _SOURCE, requestor=True)
        participants = [source, writer.destination(happening.fields["destination"])]
        sop_class = _SOP_CLASSES[happening.fields.get("object", ResultKind.RTSTRUCT.in_words)]
        objects = _study_and_patient(happening.case, sop_class, 1)
        said = writer.outcome(happening, outcome)
        return [AuditMessage(_TRANSFERRED, "R", participants=participants, objects=objects, **said)]

    return make


def _accessed(action: str, outcome: Outcome = Outcome.SUCCESS, sop_class: str = CT_IMAGE_STORAGE) -> _Maker:
    """PS3.15 A.5.3.6."""

    def make(writer: MessageWriter, happening: Happening) -> Sequence[AuditMessage]:
        if happening.case is None:
            return []
        instances = happening.case.slices if sop_class == CT_IMAGE_STORAGE else 1
        objects = _study_and_patient(happening.case, sop_class, instances)
        participants = [writer.this_box(happening.actor, requestor=True)]
        said = writer.outcome(happening, outcome)
        return [AuditMessage(_ACCESSED, action, participants=participants, objects=objects, **said)]

    return make


def _begins_to_send(writer: MessageWriter, happening: Happening) -> Sequence[AuditMessage]:
    """PS3.15 A.5.3.3: one for each destination of the case."""
    if happening.case is None:
        return []
    source = writer.this_box(happening.actor, _SOURCE, requestor=True)
    objects = _study_and_patient(happening.case, _SOP_CLASSES[ResultKind.RTSTRUCT.in_words], 1)
    said = writer.outcome(happening, Outcome.SUCCESS)
    return [
        AuditMessage(_BEGIN, "E", participants=[source, writer.destination(name)], objects=objects, **said)
        for name in happening.case.destinations
    ]


def _written_and_on_its_way(writer: MessageWriter, happening: Happening) -> Sequence[AuditMessage]:
    """The move that writes the structure set also puts the case into the outbox."""
    written = _accessed("C", sop_class=_SOP_CLASSES[ResultKind.RTSTRUCT.in_words])
    return [*written(writer, happening), *_begins_to_send(writer, happening)]


def _asked(outcome: Outcome) -> _Maker:
    """PS3.15 A.5.3.10: C-FIND, with the keys that say which series it was about."""

    def make(writer: MessageWriter, happening: Happening) -> Sequence[AuditMessage]:
        question = Dataset()
        question.QueryRetrieveLevel = "SERIES"
        if happening.case is not None:
            question.StudyInstanceUID = happening.case.study_instance_uid
            question.SeriesInstanceUID = happening.case.series_instance_uid
        written = DicomBytesIO()
        written.is_little_endian, written.is_implicit_VR = True, True
        write_dataset(written, question)
        syntax = (("TransferSyntax", str(ImplicitVRLittleEndian)),)
        what = EventObject(
            _STUDY_ROOT_FIND, _SOP_CLASS_UID, _SYSTEM_OBJECT, _REPORT, query=written.getvalue(), details=syntax
        )
        source = writer.this_box(happening.actor, _SOURCE, requestor=True)
        participants = [source, writer.destination(happening.fields["peer"])]
        said = writer.outcome(happening, outcome)
        return [AuditMessage(_QUERY, "E", participants=participants, objects=[what], **said)]

    return make


def _turned_away(writer: MessageWriter, happening: Happening) -> Sequence[AuditMessage]:
    """PS3.15 A.5.3.11: somebody who is not known, not allowed or not who it says."""
    caller = str(happening.fields["source_ae"])
    address = str(happening.fields.get("address", ""))
    participants = [writer.this_box(happening.actor, requestor=True), Participant(caller, None, False, caller, address)]
    subject = writer.alert_subject(address or caller, words_of(happening.event, happening.fields))
    said = writer.outcome(happening, Outcome.MINOR_FAILURE)
    return [AuditMessage(_ALERT, "E", participants=participants, objects=[subject], kind=_NODE_AUTHENTICATION, **said)]


def _models_exchanged(writer: MessageWriter, happening: Happening) -> Sequence[AuditMessage]:
    """PS3.15 A.5.3.11: what this box runs is another now."""
    subject = writer.alert_subject(writer.own_node, words_of(happening.event, happening.fields))
    participants = [writer.this_box(happening.actor, requestor=True)]
    said = writer.outcome(happening, Outcome.SUCCESS)
    return [AuditMessage(_ALERT, "E", participants=participants, objects=[subject], kind=_SOFTWARE, **said)]


def _trail_read(writer: MessageWriter, happening: Happening) -> Sequence[AuditMessage]:
    """PS3.15 A.5.3.2."""
    reader = Participant(happening.fields["user"], requestor=True)
    participants = [reader, writer.this_box("delineate audit")]
    said = writer.outcome(happening, Outcome.SUCCESS)
    return [AuditMessage(_LOG_USED, "R", participants=participants, objects=[writer.log_object()], **said)]


_MAKERS: dict[str, _Maker] = {
    "process_started": _activity(_START, Outcome.SUCCESS),
    "process_stopped": _activity(_STOP, Outcome.SUCCESS),
    "process_restarted": _activity(_STOP, Outcome.MAJOR_FAILURE),
    "association_refused": _turned_away,
    "model_imported": _models_exchanged,
    "model_calibrated": _models_exchanged,
    "model_activated": _models_exchanged,
    "model_removed": _models_exchanged,
    "model_restored": _models_exchanged,
    "trail_read": _trail_read,
    "trail_exported": _trail_read,
    "slices_received": _received("C"),
    "slices_repeated": _received("R"),
    "count_answered": _asked(Outcome.SUCCESS),
    "count_unanswered": _asked(Outcome.MINOR_FAILURE),
    "peer_queried": _asked(Outcome.SUCCESS),
    "volume_loaded": _accessed("R"),
    "case_refused": _accessed("R", Outcome.MINOR_FAILURE),
    "case_failed": _accessed("R", Outcome.SERIOUS_FAILURE),
    "segmentation_written": _accessed("C", sop_class=_SOP_CLASSES[ResultKind.SEG.in_words]),
    "structure_set_written": _written_and_on_its_way,
    "delivery_repeated": _begins_to_send,
    "delivery_accepted": _sent(Outcome.SUCCESS),
    "delivery_tried": _sent(Outcome.MINOR_FAILURE),
    "delivery_refused": _sent(Outcome.SERIOUS_FAILURE),
}
"""What each event makes; the others make none (docs/audit.md)."""

MAPPED = frozenset(_MAKERS)
