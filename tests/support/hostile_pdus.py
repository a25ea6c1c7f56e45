"""PDUs, bit by bit (PS3.8 section 9.3): whole ones that a careful peer sends, and what a hostile one makes of them.

Everything comes from a seed, so that whatever was found can be sent again.
"""

import random
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

VERIFICATION, CT_IMAGE = "1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.1.2"
COMMITMENT = "1.2.840.10008.1.20.1"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
ECHO_CONTEXT, CT_CONTEXT, COMMITMENT_CONTEXT = 1, 3, 5
ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
COMMAND, LAST = 1, 2
"""Bits of a PDV's message control header (PS3.8 Annex E.2)."""


def pdu(kind: int, body: bytes, length: int | None = None) -> bytes:
    """A PDU, with the length that it has or one that it claims."""
    return struct.pack(">BxI", kind, len(body) if length is None else length) + body


def item(kind: int, body: bytes, length: int | None = None) -> bytes:
    """An item of an A-ASSOCIATE PDU."""
    return struct.pack(">BxH", kind, len(body) if length is None else length) + body


def associate_rq(
    caller: bytes = b"FAKEPACS",
    called: bytes = b"DELINEATE",
    *,
    contexts: Sequence[bytes] | None = None,
    user: bytes | None = None,
) -> bytes:
    """An A-ASSOCIATE-RQ with contexts for Verification, CT and storage commitment."""
    if contexts is None:
        contexts = [context(1, VERIFICATION), context(3, CT_IMAGE, EXPLICIT), context(5, COMMITMENT)]
    if user is None:
        user = item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3.4") + item(0x55, b"HOSTILE_1")
    items = item(0x10, b"1.2.840.10008.3.1.1.1") + b"".join(contexts) + item(0x50, user)
    return pdu(ASSOCIATE_RQ, struct.pack(">H2x", 1) + called.ljust(16)[:16] + caller.ljust(16)[:16] + bytes(32) + items)


def context(number: int, abstract: str, *syntaxes: str) -> bytes:
    """A proposed presentation context."""
    proposed = b"".join(item(0x40, syntax.encode()) for syntax in syntaxes or (IMPLICIT,))
    return item(0x20, struct.pack(">B3x", number) + item(0x30, abstract.encode()) + proposed)


def pdv(number: int, control: int, fragment: bytes, length: int | None = None) -> bytes:
    """A presentation data value."""
    return struct.pack(">IBB", len(fragment) + 2 if length is None else length, number, control) + fragment


def command(*elements: tuple[int, bytes]) -> bytes:
    """A command set: group 0000 in Implicit VR Little Endian, behind its length (PS3.7 section 6.3.1)."""
    body = b"".join(struct.pack("<HHI", 0, number, len(value)) + value for number, value in elements)
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def c_echo() -> bytes:
    """A whole C-ECHO-RQ as one PDU."""
    words = command((2, even(VERIFICATION)), (0x100, _us(0x30)), (0x110, _us(1)), (0x800, _us(0x101)))
    return pdu(P_DATA, pdv(ECHO_CONTEXT, COMMAND | LAST, words))


def c_store(uid: bytes, data_set: bytes = b"\x08\x00\x18\x00UI\x04\x001.2\x00", *, sop_class: str = CT_IMAGE) -> bytes:
    """A C-STORE-RQ under this SOP Instance UID, as it stands, and its data set: two PDUs."""
    words = command(
        (2, even(sop_class)), (0x100, _us(1)), (0x110, _us(7)), (0x700, _us(2)), (0x800, _us(1)), (0x1000, uid)
    )
    return pdu(P_DATA, pdv(CT_CONTEXT, COMMAND | LAST, words)) + pdu(P_DATA, pdv(CT_CONTEXT, LAST, data_set))


RELEASE = pdu(RELEASE_RQ, bytes(4))


def even(text: str) -> bytes:
    """A UID, padded with a zero byte to an even length."""
    return text.encode() + b"\0" * (len(text) % 2)


def _us(value: int) -> bytes:
    return struct.pack("<H", value)


# ── Hostile ones ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Attack:
    """What is sent on one connection: first what brings the association into a state, then the hostile part."""

    name: str
    before: bytes
    hostile: bytes


STATES: dict[str, bytes] = {
    "connected": b"",
    "established": associate_rq(),
    "in a command": associate_rq() + pdu(P_DATA, pdv(CT_CONTEXT, COMMAND, b"\0" * 8)),
    "in an object": associate_rq() + c_store(b"1.2.3")[: len(c_store(b"1.2.3")) - 20],
    "released": associate_rq() + RELEASE,
    "echoed": associate_rq() + c_echo(),
}
EVENTS: dict[str, bytes] = {
    "A-ASSOCIATE-RQ": associate_rq(),
    "A-ASSOCIATE-AC": pdu(ASSOCIATE_AC, associate_rq()[6:]),
    "A-ASSOCIATE-RJ": pdu(ASSOCIATE_RJ, b"\0\1\1\1"),
    "P-DATA-TF": c_echo(),
    "A-RELEASE-RQ": RELEASE,
    "A-RELEASE-RP": pdu(RELEASE_RP, bytes(4)),
    "A-ABORT": pdu(ABORT, b"\0\0\2\0"),
    "unknown PDU": pdu(0x42, b"\0" * 10),
    "PDU of type 0": pdu(0, b""),
    "object": c_store(b"1.2.3"),
    "data before command": pdu(P_DATA, pdv(CT_CONTEXT, LAST, b"\0" * 20)),
    "unknown context": pdu(P_DATA, pdv(77, COMMAND | LAST, b"\0" * 20)),
    "context 0": pdu(P_DATA, pdv(0, COMMAND | LAST, b"\0" * 20)),
    "no command": pdu(P_DATA, pdv(CT_CONTEXT, COMMAND | LAST, b"")),
    "nothing in P-DATA": pdu(P_DATA, b""),
    "PDV of length 0": pdu(P_DATA, pdv(CT_CONTEXT, COMMAND | LAST, b"", length=0)),
    "PDV longer than its PDU": pdu(P_DATA, pdv(CT_CONTEXT, COMMAND | LAST, b"\0" * 9, length=0xFFFFFFFF)),
    "a response": pdu(P_DATA, pdv(ECHO_CONTEXT, 3, command((0x100, _us(0x8030)), (0x120, _us(1)), (0x900, _us(0))))),
    "C-CANCEL": pdu(P_DATA, pdv(CT_CONTEXT, 3, command((0x100, _us(0x0FFF)), (0x120, _us(1)), (0x800, _us(0x101))))),
    "C-FIND": pdu(P_DATA, pdv(CT_CONTEXT, 3, command((2, even(CT_IMAGE)), (0x100, _us(0x20)), (0x800, _us(1))))),
    "no contexts": associate_rq(contexts=[]),
    "129 contexts": associate_rq(contexts=[context(number % 256, CT_IMAGE) for number in range(1, 259, 2)]),
    "one context twice": associate_rq(contexts=[context(1, CT_IMAGE), context(1, VERIFICATION)]),
    "no user information": associate_rq(user=b""),
    "max length 0": associate_rq(user=item(0x51, struct.pack(">I", 0))),
    "max length 1": associate_rq(user=item(0x51, struct.pack(">I", 1))),
    "user identity": associate_rq(user=item(0x58, b"\2\1\0\4root\0\6secret")),
    "item longer than its PDU": associate_rq(user=item(0x51, b"\0", length=0xFFFF)),
    "bytes of no kind": b"\xff" * 40,
    "HTTP": b"GET / HTTP/1.1\r\nHost: delineate\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + b"\x55" * 190,
}


def attacks(seed: int, count: int) -> Iterator[Attack]:
    """Every event in every state, then mutations of them without end, up to `count`."""
    dice = random.Random(seed)
    table = [(state, event) for state in STATES for event in EVENTS]
    for state, event in table[:count]:
        yield Attack(f"{event} when {state}", STATES[state], EVENTS[event])
    for number in range(len(table), count):
        state, event = dice.choice(table)
        change = dice.choice(_CHANGES)
        hostile = change(dice, EVENTS[event])
        for _ in range(dice.randrange(3)):
            hostile = dice.choice(_CHANGES)(dice, hostile)
        yield Attack(f"{number}: {event} when {state}, {change.__name__}", STATES[state], hostile)


def lengths(seed: int, count: int) -> Iterator[int]:
    """Lengths that a PDU may claim: the edges first, then anything up to 2^32 - 1."""
    edges = [0, 1, 2, 3, 67, 68, 0xFFFF, 0x10000, 1 << 20, (1 << 20) + 7, 1 << 24, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
    dice = random.Random(seed)
    yield from edges[:count]
    for _ in range(len(edges), count):
        yield dice.randrange(1 << dice.randrange(1, 33))


def uids(seed: int, count: int) -> Iterator[bytes]:
    """SOP Instance UIDs that no careful peer would send."""
    known = [
        b"",
        b" ",
        b"\0\0",
        b"..",
        b"../../../../tmp/evil",
        b"..\\..\\evil",
        b"/etc/passwd",
        b"C:\\evil.dcm",
        b"1..2",
    ]
    known += [b"01.2.3", b"1.02.3", b"1.2.3.", b".1.2", b"1.2.-3", b"1.2.3\n", b"1.2\0.3", b"1" * 65, b"1." * 40 + b"1"]
    known += [b"1.2.\xd9\xa3", b"1.2.\xef\xbc\x93", b"1.2.%2e%2e", b"$(id)", b"`id`", b";reboot", b"1.2.3\r\nEVIL: 1"]
    known += [b"\x1b]0;evil\x07", b"<svg/onload=x()>", b"1.2.3/../../x", b"~root", b"*", b"CON", b"NUL", b"-rf", b"|sh"]
    dice = random.Random(seed)
    yield from known[:count]
    for _ in range(len(known), count):
        parts = [dice.choice([*known, b"1.2.840", bytes([dice.randrange(256)])]) for _ in range(dice.randrange(1, 5))]
        yield b"/".join(parts)[: dice.choice([8, 64, 65, 300])]


def _flip(dice: random.Random, data: bytes) -> bytes:
    changed = bytearray(data or b"\0")
    for _ in range(dice.randrange(1, 9)):
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def _cut(dice: random.Random, data: bytes) -> bytes:
    return data[: dice.randrange(len(data) + 1)]


def _longer(dice: random.Random, data: bytes) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] + dice.randbytes(dice.randrange(1, 300)) + data[at:]


def _claim(dice: random.Random, data: bytes) -> bytes:
    """Another length in the PDU's header."""
    return data[:2] + struct.pack(">I", dice.randrange(1 << dice.randrange(1, 33))) + data[6:]


def _inner(dice: random.Random, data: bytes) -> bytes:
    """Four bytes somewhere become an edge of an integer."""
    at = dice.randrange(max(1, len(data) - 4))
    edge = dice.choice([0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
    return data[:at] + struct.pack(">I", edge) + data[at + 4 :]


def _repeat(dice: random.Random, data: bytes) -> bytes:
    return data * dice.randrange(2, 20)


def _noise(dice: random.Random, data: bytes) -> bytes:  # noqa: ARG001
    return dice.randbytes(dice.randrange(1, 2000))


_CHANGES: tuple[Callable[[random.Random, bytes], bytes], ...] = (_flip, _cut, _longer, _claim, _inner, _repeat, _noise)
