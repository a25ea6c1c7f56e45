"""Association negotiation of the acceptor (PS3.8 §7.1, §9.3; PS3.7 Annex D): what is asked for and what we answer.

The codecs are pynetdicom's. What may reach them is bounded before: a length, and a number of presentation contexts;
and contexts of SOP classes that we do not know are answered without decoding them. A sender may propose them all.
"""

import struct
from dataclasses import dataclass
from typing import Any

from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from pynetdicom._globals import APPLICATION_CONTEXT_NAME  # type: ignore[import-untyped,unused-ignore]
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext, negotiate_as_acceptor
from pynetdicom.sop_class import CTImageStorage, StorageCommitmentPushModel, Verification  # type: ignore[attr-defined]

from appliance import IMPLEMENTATION_CLASS_UID, __version__

_UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
TRANSFER_SYNTAXES = (
    *_UNCOMPRESSED,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLosslessSV1,
    JPEGLossless,
    RLELossless,
)
"""What a CT may come in: all without loss, none that inflates without bound (Deflated is not offered)."""

MAX_PDU_BYTES = 1 << 20
"""Largest PDU that we take."""

MAX_ASSOCIATE_BYTES = 1 << 16
"""Longest A-ASSOCIATE-RQ that we take; a request for 128 contexts with seven syntaxes each is half of it."""

MAX_CONTEXTS = 128
"""PS3.8 Table 9-13: context IDs are odd and fit one byte."""

_PROTOCOL_VERSION = 0x0001
_ITEMS_AT = 74
_CONTEXT_ITEM = 0x20
_ABSTRACT_SYNTAX_AT = 12
_UNKNOWN_CLASS = 3
_UNREADABLE = (
    AssertionError,
    AttributeError,
    IndexError,
    KeyError,
    NotImplementedError,
    TypeError,
    ValueError,
    struct.error,
)
"""What pynetdicom's decoders raise on bytes that they do not expect."""


class BadRequest(ValueError):
    """What came is no A-ASSOCIATE-RQ that can be answered."""


@dataclass(frozen=True, slots=True)
class Request:
    """What an A-ASSOCIATE-RQ asks for.

    Attributes:
        calling_ae: who calls, by its own word.
        called_ae: whom it calls.
        refused: why it can only be rejected, as result, source and reason of PS3.8 Table 9-21; None if it need not.
        primitive: all of it, but for presentation contexts of which nothing can come.
        unknown: the IDs of those.
    """

    calling_ae: str
    called_ae: str
    refused: tuple[int, int, int] | None
    primitive: A_ASSOCIATE
    unknown: tuple[int, ...]

    @property
    def stores(self) -> bool:
        """Whether it wants to send images."""
        contexts = self.primitive.presentation_context_definition_list
        return any(context.abstract_syntax == CTImageStorage for context in contexts)


@dataclass(frozen=True, slots=True)
class Agreement:
    """What was agreed: the answer, each accepted context with its two syntaxes, and how much the peer takes at once."""

    answer: bytes
    contexts: dict[int, tuple[str, str]]
    peer_max_bytes: int


def read_request(pdu: bytes) -> Request:
    """Read a whole A-ASSOCIATE-RQ, header and all.

    Raises:
        BadRequest: it cannot be understood, or asks for too much.
    """
    if len(pdu) < _ITEMS_AT:
        raise BadRequest("an association request that breaks off")
    pdu, unknown = _set_aside(pdu)
    (version,) = struct.unpack_from(">H", pdu, 6)
    decoded = A_ASSOCIATE_RQ()
    try:
        decoded.decode(pdu)
        primitive = decoded.to_primitive()
        name = str(decoded.application_context_name)
    except _UNREADABLE as error:
        raise BadRequest("an association request that cannot be read") from error
    refused = None
    if not version & _PROTOCOL_VERSION:
        refused = (1, 2, 2)  # PS3.8 Table 9-21: by the provider (ACSE), protocol version not supported
    elif name != APPLICATION_CONTEXT_NAME:
        refused = (1, 1, 2)  # by the user, application context name not supported
    return Request(decoded.calling_ae_title.strip(), decoded.called_ae_title.strip(), refused, primitive, unknown)


def agree(request: Request) -> Agreement:
    """Negotiate contexts and roles, and write the A-ASSOCIATE-AC.

    Raises:
        BadRequest: its presentation contexts contradict themselves.
    """
    asked = request.primitive
    roles: Any = {
        item.sop_class_uid: (bool(item.scu_role), bool(item.scp_role))
        for item in asked.user_information
        if isinstance(item, SCP_SCU_RoleSelectionNegotiation)
    }
    try:
        results, own_roles = negotiate_as_acceptor(asked.presentation_context_definition_list, _SUPPORTED, roles)
        answer = A_ASSOCIATE_AC()
        answer.from_primitive(_acceptance(asked, results, own_roles))
        encoded = _with_unknown(answer.encode(), request.unknown)
    except _UNREADABLE as error:
        raise BadRequest("presentation contexts that cannot be answered") from error
    accepted = {
        int(context.context_id or 0): (str(context.abstract_syntax), str(context.transfer_syntax[0]))
        for context in results
        if context.result == 0
    }
    lengths = [
        item.maximum_length_received for item in asked.user_information if isinstance(item, MaximumLengthNotification)
    ]
    return Agreement(encoded, accepted, next(iter(lengths), 0))


def rejection(result: int, source: int, reason: int) -> bytes:
    """An A-ASSOCIATE-RJ (PS3.8 §9.3.4)."""
    return struct.pack(">BxIxBBB", 0x03, 4, result, source, reason)


def abort(source: int, reason: int) -> bytes:
    """An A-ABORT (PS3.8 §9.3.8)."""
    return struct.pack(">BxIxxBB", 0x07, 4, source, reason)


def _acceptance(asked: A_ASSOCIATE, results: list[Any], roles: list[Any]) -> A_ASSOCIATE:
    primitive = A_ASSOCIATE()
    primitive.application_context_name = UID(APPLICATION_CONTEXT_NAME)
    primitive.calling_ae_title, primitive.called_ae_title = asked.calling_ae_title, asked.called_ae_title
    primitive.result, primitive.result_source = 0x00, 0x01
    primitive.presentation_context_definition_results_list = results
    longest, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    version = ImplementationVersionNameNotification()
    longest.maximum_length_received = MAX_PDU_BYTES
    implementation.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    version.implementation_version_name = f"DELINEATE_{__version__}"
    primitive.user_information = [longest, implementation, version, *roles]
    return primitive


def _set_aside(pdu: bytes) -> tuple[bytes, tuple[int, ...]]:
    """An A-ASSOCIATE-RQ without the presentation contexts of unknown SOP classes, and the IDs of those.

    Raises:
        BadRequest: there are more contexts than there can be.
    """
    kept, unknown, known = bytearray(pdu[:_ITEMS_AT]), [], 0
    at = _ITEMS_AT
    while at < len(pdu):
        item = pdu[at : at + 4 + int.from_bytes(pdu[at + 2 : at + 4], "big")]
        at += max(len(item), 1)
        if item[0] == _CONTEXT_ITEM and len(item) > _ABSTRACT_SYNTAX_AT:
            length = int.from_bytes(item[_ABSTRACT_SYNTAX_AT - 2 : _ABSTRACT_SYNTAX_AT], "big")
            name = item[_ABSTRACT_SYNTAX_AT : _ABSTRACT_SYNTAX_AT + length].rstrip(b"\0 ")
            if name not in _KNOWN_CLASSES:
                unknown.append(item[4])
                continue
            known += 1
        kept += item
    if known + len(unknown) > MAX_CONTEXTS:
        raise BadRequest("an association request with more presentation contexts than there can be")
    kept[2:6] = (len(kept) - 6).to_bytes(4, "big")
    return bytes(kept), tuple(unknown)


def _with_unknown(answer: bytes, unknown: tuple[int, ...]) -> bytes:
    """An A-ASSOCIATE-AC that also says of contexts that their SOP class is not known (PS3.8 §9.3.3.2)."""
    behind_name = _ITEMS_AT + 4 + int.from_bytes(answer[_ITEMS_AT + 2 : _ITEMS_AT + 4], "big")
    syntax = ImplicitVRLittleEndian.encode()  # it has to be there and means nothing
    items = b"".join(
        struct.pack(">BxHBxBxBxH", 0x21, 8 + len(syntax), context_id, _UNKNOWN_CLASS, 0x40, len(syntax)) + syntax
        for context_id in unknown
    )
    length = len(answer) + len(items) - 6
    return answer[:2] + length.to_bytes(4, "big") + answer[6:behind_name] + items + answer[behind_name:]


def _context(sop_class: str, syntaxes: tuple[UID, ...], *, both_roles: bool = False) -> PresentationContext:
    context = PresentationContext()
    context.abstract_syntax, context.transfer_syntax = UID(sop_class), list(syntaxes)
    if both_roles:
        context.scu_role = context.scp_role = True
    return context


_SUPPORTED = [
    _context(Verification, _UNCOMPRESSED),
    _context(CTImageStorage, TRANSFER_SYNTAXES),
    # PS3.4 J.3.3: the SCP reports on an association of its own and takes the SCP role by negotiation
    _context(StorageCommitmentPushModel, _UNCOMPRESSED, both_roles=True),
]
_KNOWN_CLASSES = {str(context.abstract_syntax).encode() for context in _SUPPORTED}
