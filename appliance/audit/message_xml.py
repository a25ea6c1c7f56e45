"""A DICOM audit message as XML: the schema of PS3.15 A.5.1, and nothing of what our events mean."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from xml.etree.ElementTree import Element, SubElement, tostring

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_APPLICATION_SERVER = "4"
"""Audit Source Type Code, PS3.15 A.5.1.2.1."""

MACHINE_NAME, IP_ADDRESS = "1", "2"
"""Network Access Point Type Codes."""


class Outcome(IntEnum):
    """EventOutcomeIndicator."""

    SUCCESS = 0
    MINOR_FAILURE = 4  #: tried again, or turned away without harm
    SERIOUS_FAILURE = 8  #: a person has to do something
    MAJOR_FAILURE = 12  #: a part of the application is gone


@dataclass(frozen=True, slots=True)
class Code:
    """A coded value; DCM (PS3.16) unless told otherwise."""

    value: str
    meaning: str
    system: str = "DCM"


@dataclass(frozen=True, slots=True)
class Participant:
    """Who took part.

    Attributes:
        user: the process or person.
        role: in this event.
        requestor: whether it began it.
        ae_title: its AE title, when it has one.
        address: its machine, by name or IP address, where known.
    """

    user: str
    role: Code | None = None
    requestor: bool = False
    ae_title: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True)
class Contents:
    """How many instances of a SOP class an object has, and under which accession number."""

    sop_class_uid: str
    instances: int
    accession_number: str = ""


@dataclass(frozen=True, slots=True)
class EventObject:
    """What the event was about.

    Attributes:
        identifier: ParticipantObjectID.
        id_type: what kind of identifier that is.
        kind: ParticipantObjectTypeCode: "1" a person, "2" a system object.
        role: ParticipantObjectTypeCodeRole.
        name: for people; never a patient's.
        query: instead of a name, the query to the letter.
        details: more about it, by type.
        contents: what of DICOM it holds.
    """

    identifier: str
    id_type: Code
    kind: str
    role: str
    name: str = ""
    query: bytes | None = None
    details: tuple[tuple[str, str], ...] = ()
    contents: Contents | None = None


@dataclass(frozen=True, slots=True)
class AuditMessage:
    """One message, ready to be written.

    Attributes:
        event: EventID.
        action: EventActionCode, one of C, R, U, D, E.
        kind: EventTypeCode.
        words: EventOutcomeDescription.
    """

    event: Code
    action: str
    at: datetime
    outcome: Outcome
    participants: Sequence[Participant]
    objects: Sequence[EventObject] = ()
    kind: Code | None = None
    words: str = ""

    def as_xml(self, source_id: str) -> bytes:
        """The message in UTF-8, without a declaration.

        Args:
            source_id: who reports it, AuditSourceID.
        """
        root = Element("AuditMessage")
        about = {
            "EventActionCode": self.action,
            "EventDateTime": self.at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "EventOutcomeIndicator": str(int(self.outcome)),
        }
        event = SubElement(root, "EventIdentification", about)
        _code(event, "EventID", self.event)
        if self.kind is not None:
            _code(event, "EventTypeCode", self.kind)
        if self.words:
            SubElement(event, "EventOutcomeDescription").text = _xml_text(self.words)
        for participant in self.participants:
            _participant(root, participant)
        source = SubElement(root, "AuditSourceIdentification", {"AuditSourceID": _xml_text(source_id)})
        SubElement(source, "AuditSourceTypeCode", {"csd-code": _APPLICATION_SERVER})
        for one in self.objects:
            _object(root, one)
        written: bytes = tostring(root, encoding="utf-8", xml_declaration=False)
        return written


def _participant(root: Element, participant: Participant) -> None:
    about = {"UserID": _xml_text(participant.user), "UserIsRequestor": str(participant.requestor).lower()}
    if participant.ae_title:
        about["AlternativeUserID"] = _xml_text(f"AETITLES={participant.ae_title}")  # PS3.15 A.5.2.2
    if participant.address:
        about["NetworkAccessPointID"] = _xml_text(participant.address)
        about["NetworkAccessPointTypeCode"] = IP_ADDRESS if _is_ip(participant.address) else MACHINE_NAME
    element = SubElement(root, "ActiveParticipant", about)
    if participant.role is not None:
        _code(element, "RoleIDCode", participant.role)


def _object(root: Element, one: EventObject) -> None:
    about = {
        "ParticipantObjectID": _xml_text(one.identifier),
        "ParticipantObjectTypeCode": one.kind,
        "ParticipantObjectTypeCodeRole": one.role,
    }
    element = SubElement(root, "ParticipantObjectIdentification", about)
    _code(element, "ParticipantObjectIDTypeCode", one.id_type)
    if one.query is not None:
        SubElement(element, "ParticipantObjectQuery").text = base64.b64encode(one.query).decode()
    else:
        SubElement(element, "ParticipantObjectName").text = _xml_text(one.name or one.identifier)
    for kind, value in one.details:
        encoded = base64.b64encode(_xml_text(value).encode()).decode()
        SubElement(element, "ParticipantObjectDetail", {"type": kind, "value": encoded})
    if one.contents is not None:
        inside = SubElement(element, "ParticipantObjectDescription")
        if one.contents.accession_number:
            SubElement(inside, "Accession", {"Number": _xml_text(one.contents.accession_number)})
        about = {"UID": one.contents.sop_class_uid, "NumberOfInstances": str(one.contents.instances)}
        SubElement(inside, "SOPClass", about)


def _code(parent: Element, name: str, code: Code) -> None:
    about = {"csd-code": code.value, "codeSystemName": code.system, "originalText": code.meaning}
    SubElement(parent, name, about)


def _is_ip(address: str) -> bool:
    return ":" in address or address.replace(".", "").isdigit()


def _xml_text(text: str) -> str:
    """What XML 1.0 can hold of a text; control characters that a peer put into its title become marks."""
    return _NO_XML.sub("\ufffd", text)
