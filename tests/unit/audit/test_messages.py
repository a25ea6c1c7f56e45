"""DICOM audit messages: each as PS3.15 A.5 wants it, the same as the one in tests/data/audit_messages."""

from pathlib import Path
from string import Formatter
from typing import Any
from xml.etree.ElementTree import fromstring, indent, tostring

import pytest

from appliance.audit.messages import MAPPED, CaseFacts, Happening, MessageWriter
from appliance.audit.trail import EVENTS
from appliance.settings import Settings
from tests.support.audit_schema import faults_of
from tests.support.config_folder import make_settings
from tests.support.rows import NOON

GOLDEN = Path(__file__).parents[2] / "data" / "audit_messages"
CASE = CaseFacts("P1", "1.2.3", "1.2.3.4", "A1", "FAKEPACS", 118, ("pacs", "gone"))
_FACTS: dict[str, Any] = {
    "process": "assembler",
    "version": "0.1.0",
    "exit_code": -9,
    "source_ae": "STRANGER",
    "sentence": "it is not in peers.toml",
    "user": "operator1",
    "what": "case 5",
    "count": 7,
    "total": 118,
    "object": "structure set",
    "destination": "pacs",
    "status": "0x0000",
    "attempts": 3,
    "wait_s": 5.0,
    "object_uid": "2.25.1",
    "size_kb": 12,
    "frames": 3,
    "sop_instance_uid": "2.25.1",
    "reason": "slice_missing",
    "shape": [1, 2, 3],
    "name": "pelvis",
    "before": "1",
    "peer": "pacs",
    "expected": 240,
    "here": 118,
    "found": 3,
    "wanted": 1,
    "cases": 20,
    "source": "model.zip",
    "digest": "d" * 64,
    "input_digest": "e" * 64,
}


@pytest.fixture
def writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MessageWriter:
    monkeypatch.setattr("socket.gethostname", lambda: "box1")
    settings: Settings = make_settings(tmp_path)
    return MessageWriter(settings)


def happening(event: str, case: CaseFacts | None = CASE, **facts: Any) -> Happening:
    needed = {field for _, field, _, _ in Formatter().parse(EVENTS[event]) if field}
    fields = {name: {**_FACTS, **facts}[name] for name in needed} | facts
    return Happening(12, NOON, event, "assembler", fields, case)


def xml_of(writer: MessageWriter, told: Happening) -> list[bytes]:
    return [message.as_xml(writer.station) for message in writer.messages_of(told)]


@pytest.mark.parametrize("event", sorted(MAPPED))
def test_each_message_is_as_the_standard_wants_it_and_as_it_was_before(writer: MessageWriter, event: str) -> None:
    made = xml_of(writer, happening(event))
    assert made
    assert [fault for xml in made for fault in faults_of(xml)] == []
    assert "\n\n".join(_readable(xml) for xml in made) + "\n" == (GOLDEN / f"{event}.xml").read_text()


def test_every_message_belongs_to_an_event_of_the_vocabulary() -> None:
    assert set(EVENTS) >= MAPPED
    assert {path.stem for path in GOLDEN.glob("*.xml")} == MAPPED


@pytest.mark.parametrize("event", sorted(MAPPED))
def test_no_message_holds_what_is_not_known(writer: MessageWriter, event: str) -> None:
    for xml in xml_of(writer, happening(event, case=None)):
        assert faults_of(xml) == []


@pytest.mark.parametrize(
    ("event", "outcome"),
    [
        ("delivery_accepted", "0"),
        ("delivery_tried", "4"),
        ("association_refused", "4"),
        ("delivery_refused", "8"),
        ("case_failed", "8"),
        ("process_restarted", "12"),
    ],
)
def test_how_it_went_is_not_always_success(writer: MessageWriter, event: str, outcome: str) -> None:
    (xml,) = xml_of(writer, happening(event))
    assert f'EventOutcomeIndicator="{outcome}"' in xml.decode()


def test_a_case_goes_to_each_of_its_destinations(writer: MessageWriter) -> None:
    begun = [xml for xml in xml_of(writer, happening("structure_set_written")) if b'"110102"' in xml]
    assert [b'UserID="pacs"' in xml for xml in begun] == [True, False]


@pytest.mark.parametrize("title", ["\x1b[31mRED", "a\x00b", "<x>&'\"", "\ud800", "\ufffe", "\r\n", "  "])
def test_whatever_a_caller_calls_itself_the_message_can_be_read(writer: MessageWriter, title: str) -> None:
    told = happening("association_refused", source_ae=title, sentence=title)
    (xml,) = xml_of(writer, told)
    assert fromstring(xml).tag == "AuditMessage"  # noqa: S314 - our own message


def test_an_event_that_lacks_a_fact_holds_up_nobody(writer: MessageWriter) -> None:
    assert writer.messages_of(Happening(1, NOON, "slices_received", "assembler", {}, CASE)) == []


def test_the_judge_finds_faults() -> None:
    right = (GOLDEN / "slices_received.xml").read_text()
    for old, new in (
        ('EventOutcomeIndicator="0"', 'EventOutcomeIndicator="1"'),
        ('EventActionCode="C"', 'EventActionCode="E"'),
        ('csd-code="110153"', 'csd-code="110150"'),
        ('ParticipantObjectTypeCodeRole="3"', 'ParticipantObjectTypeCodeRole="13"'),
        (' UserIsRequestor="true"', ""),
        ("<ParticipantObjectName>P1</ParticipantObjectName>", ""),
        ('<AuditSourceTypeCode csd-code="4" />', "<Surprise />"),
    ):
        assert faults_of(right.encode()) == []
        assert old in right
        assert faults_of(right.replace(old, new).encode())


def _readable(xml: bytes) -> str:
    root = fromstring(xml)  # noqa: S314 - our own message
    indent(root)
    return tostring(root, encoding="unicode")
