"""Association negotiation of the acceptor (PS3.8 §7.1, §9.3; PS3.7 Annex D): what is asked for and what we answer.

The codecs are pynetdicom's. What may reach them is bounded before: a length, and a number of presentation contexts.
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
_FIXED_BYTES = 68
_CONTEXT_ITEM = 0x20
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
        primitive: all of it.
    """

    calling_ae: str
    called_ae: str
    refused: tuple[int, int, int] | None
    primitive: A_ASSOCIATE

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
    if len(pdu) < 6 + _FIXED_BYTES or _count_contexts(pdu) > MAX_CONTEXTS:
        raise BadRequest("an association request that breaks off, or one with too many presentation contexts")
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
    return Request(decoded.calling_ae_title.strip(), decoded.called_ae_title.strip(), refused, primitive)


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
        encoded = answer.encode()
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


def _count_contexts(pdu: bytes) -> int:
    """How many presentation contexts are asked for, without decoding any."""
    count, at = 0, 6 + _FIXED_BYTES
    while at + 4 <= len(pdu):
        count += pdu[at] == _CONTEXT_ITEM
        at += 4 + int.from_bytes(pdu[at + 2 : at + 4], "big")
    return count


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
