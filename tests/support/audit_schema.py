"""A judge of DICOM audit messages of its own: the schema of PS3.15 A.5.1, and the tables of A.5.3 that we use."""

import re
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, fromstring

ANY, MANY = "*", "+"
_WORDS = r"\S(.*\S)?"
_CODE = {"csd-code": _WORDS, "codeSystemName": _WORDS, "originalText": _WORDS, "displayName?": _WORDS}
_UID = r"[0-2](\.(0|[1-9][0-9]*))+"


@dataclass(frozen=True)
class Rule:
    """What an element may have: attributes (with "?" where optional) and children in order (name, how often)."""

    attributes: Mapping[str, str]
    children: Sequence[tuple[str, str]] = ()
    text: str = ""


RULES: Mapping[str, Rule] = {
    "AuditMessage": Rule(
        {},
        [
            ("EventIdentification", "1"),
            ("ActiveParticipant", MANY),
            ("AuditSourceIdentification", "1"),
            ("ParticipantObjectIdentification", ANY),
        ],
    ),
    "EventIdentification": Rule(
        {
            "EventActionCode?": "[CRUDE]",
            "EventDateTime": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?",
            "EventOutcomeIndicator": "0|4|8|12",
        },
        [("EventID", "1"), ("EventTypeCode", ANY), ("EventOutcomeDescription", "?")],
    ),
    "EventID": Rule(_CODE),
    "EventTypeCode": Rule(_CODE),
    "EventOutcomeDescription": Rule({}, text=r".+"),
    "ActiveParticipant": Rule(
        {
            "UserID": ".*",
            "AlternativeUserID?": ".*",
            "UserName?": ".*",
            "UserIsRequestor": "true|false|0|1",
            "NetworkAccessPointID?": _WORDS,
            "NetworkAccessPointTypeCode?": "[1-5]",
        },
        [("RoleIDCode", ANY)],
    ),
    "RoleIDCode": Rule(_CODE),
    "AuditSourceIdentification": Rule(
        {"AuditEnterpriseSiteID?": _WORDS, "AuditSourceID": _WORDS}, [("AuditSourceTypeCode", ANY)]
    ),
    "AuditSourceTypeCode": Rule({"csd-code": "[1-9]"}),
    "ParticipantObjectIdentification": Rule(
        {
            "ParticipantObjectID": _WORDS,
            "ParticipantObjectTypeCode?": "[1-4]",
            "ParticipantObjectTypeCodeRole?": "[1-9]|1[0-9]|2[0-6]",
            "ParticipantObjectDataLifeCycle?": "[1-9]|1[0-5]",
        },
        [
            ("ParticipantObjectIDTypeCode", "1"),
            ("ParticipantObjectName", "?"),
            ("ParticipantObjectQuery", "?"),
            ("ParticipantObjectDetail", ANY),
            ("ParticipantObjectDescription", ANY),
        ],
    ),
    "ParticipantObjectIDTypeCode": Rule(_CODE),
    "ParticipantObjectName": Rule({}, text=_WORDS),
    "ParticipantObjectQuery": Rule({}, text=r"[A-Za-z0-9+/=]+"),
    "ParticipantObjectDetail": Rule({"type": _WORDS, "value": r"[A-Za-z0-9+/=]*"}),
    "ParticipantObjectDescription": Rule({}, [("MPPS", ANY), ("Accession", ANY), ("SOPClass", ANY)]),
    "Accession": Rule({"Number": _WORDS}),
    "SOPClass": Rule({"UID?": _UID, "NumberOfInstances": r"\d+"}),
}

_ASKED = ("110181", "2", "3")
_STUDY, _PATIENT = ("110180", "2", "3"), ("2", "1", "1")
_ALERT_NODE, _LOG = ("110182", "2", "13"), ("12", "2", "13")


@dataclass(frozen=True)
class Table:
    """One table of A.5.3: actions, kinds, roles of participants, and objects (type of identifier, type, role)."""

    actions: str
    kinds: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    objects: frozenset[tuple[str, str, str]] = frozenset()


TABLES: Mapping[str, Table] = {
    "110100": Table("E", frozenset({"110120", "110121"}), frozenset({"110150"})),
    "110101": Table("R", objects=frozenset({_LOG})),
    "110102": Table("E", roles=frozenset({"110153", "110152"}), objects=frozenset({_STUDY, _PATIENT})),
    "110103": Table("CRUD", objects=frozenset({_STUDY, _PATIENT})),
    "110104": Table("CRU", roles=frozenset({"110153", "110152"}), objects=frozenset({_STUDY, _PATIENT})),
    "110112": Table("E", roles=frozenset({"110153", "110152"}), objects=frozenset({_ASKED})),
    "110113": Table("E", frozenset({"110126", "110131"}), objects=frozenset({_ALERT_NODE})),
}


def faults_of(xml: bytes) -> list[str]:
    """Everything that is wrong with a message; nothing when it may be sent."""
    root = fromstring(xml)  # noqa: S314 - our own message
    found = ["the root is no AuditMessage"] if root.tag != "AuditMessage" else []
    return found + [fault for element in root.iter() for fault in _element_faults(element)] + list(_table_faults(root))


def _element_faults(element: Element) -> Iterator[str]:
    rule = RULES.get(element.tag)
    if rule is None:
        yield f"{element.tag} is not in the schema"
        return
    allowed = {name.rstrip("?"): pattern for name, pattern in rule.attributes.items()}
    for name, value in element.attrib.items():
        if name not in allowed or not re.fullmatch(allowed[name], value, re.DOTALL):
            yield f"{element.tag} has {name}={value!r}"
    for name in rule.attributes:
        if not name.endswith("?") and name not in element.attrib:
            yield f"{element.tag} lacks {name}"
    pattern = "".join(f"({name} ){'' if often == '1' else often}" for name, often in rule.children)
    order = "".join(f"{child.tag} " for child in element)
    if not re.fullmatch(pattern, order):
        yield f"{element.tag} has the children {order}"
    if rule.text and not re.fullmatch(rule.text, element.text or "", re.DOTALL):
        yield f"{element.tag} says {element.text!r}"
    if element.tag == "ParticipantObjectIdentification" and order.count("Name ") + order.count("Query ") != 1:
        yield "an object has a name or a query"
    if element.tag == "ParticipantObjectDetail":
        b64decode(element.get("value", ""), validate=True)


def _table_faults(root: Element) -> Iterator[str]:
    event = root.find("EventIdentification/EventID")
    code = "" if event is None else event.get("csd-code", "")
    table = TABLES.get(code)
    identification = root.find("EventIdentification")
    if table is None or identification is None:
        yield f"{code} is none of our events"
        return
    if identification.get("EventActionCode") not in table.actions:
        yield f"{code} has the action {identification.get('EventActionCode')}"
    kinds = {kind.get("csd-code") for kind in root.iter("EventTypeCode")}
    if table.kinds and (len(kinds) != 1 or not kinds <= table.kinds):
        yield f"{code} has the types {kinds}"
    roles = {role.get("csd-code") for role in root.iter("RoleIDCode")}
    if not table.roles <= roles:
        yield f"{code} has the roles {roles}"
    objects = [_kind_of_object(one) for one in root.iter("ParticipantObjectIdentification")]
    if sorted(objects) != sorted(table.objects):
        yield f"{code} has the objects {objects}"
    if identification.get("EventOutcomeIndicator") != "0" and root.find(".//EventOutcomeDescription") is None:
        yield "a failure is not described"


def _kind_of_object(one: Element) -> tuple[str, str, str]:
    kind = one.find("ParticipantObjectIDTypeCode")
    code = "" if kind is None else kind.get("csd-code", "")
    return code, one.get("ParticipantObjectTypeCode", ""), one.get("ParticipantObjectTypeCodeRole", "")
