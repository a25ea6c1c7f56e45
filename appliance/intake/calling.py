"""Calling another node to ask and to fetch: an association that is always closed again, and errors as one sentence."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation

from appliance import IMPLEMENTATION_CLASS_UID, __version__
from appliance.errors import ApplianceError, SettingsError
from appliance.settings import Peer, Settings
from appliance.settings.tls import CallingContext, calling_context

PLAIN: list[str | UID] = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
"""Proposed for everything that is not an image; never Deflated, which inflates without bound."""

_CONNECT_S = 10.0

_config.LOG_RESPONSE_IDENTIFIERS = False  # what a PACS knows of its patients is for no log; and it need not be a text


class NoAnswer(ApplianceError):
    """A node did not answer a question, or did not send what it was asked for; the message says why."""


@dataclass(frozen=True, slots=True)
class Request:
    """What an association is for.

    Attributes:
        contexts: abstract syntax with its transfer syntaxes, a presentation context each.
        timeout_s: the longest silence.
        roles: where we are the SCP of what we ask for.
        handlers: pynetdicom's, for what the node sends.
    """

    contexts: Sequence[tuple[UID, list[str | UID]]]
    timeout_s: float
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = ()
    handlers: Sequence[tuple[Any, ...]] = ()


@contextmanager
def association(settings: Settings, peer: Peer, request: Request) -> Iterator[Association]:
    """An association with `peer`, released at the end, or aborted if something went wrong.

    Raises:
        NoAnswer: nobody answers there, it rejects us, or it takes none of the contexts.
    """
    ae = AE(ae_title=settings.intake.ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = f"DELINEATE_{__version__}"
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = request.timeout_s
    ae.connection_timeout = min(request.timeout_s, _CONNECT_S)
    for abstract_syntax, transfer_syntaxes in request.contexts:
        ae.add_requested_context(abstract_syntax, transfer_syntaxes)
    context = _context(settings, peer)
    made = ae.associate(
        peer.host,
        peer.port,
        ae_title=peer.ae_title,
        ext_neg=list(request.roles),
        evt_handlers=[(evt.EVT_CONN_OPEN, _send_without_delay), *request.handlers],
        tls_args=None if context is None else (context, peer.host),
    )
    if not made.is_established:
        raise NoAnswer(_why_not(made, peer, settings.intake.ae_title, context))
    went_well = False
    try:
        yield made
        went_well = True
    finally:
        if made.is_established:
            made.release() if went_well else made.abort()


def _context(settings: Settings, peer: Peer) -> CallingContext | None:
    """What TLS needs, read anew for each call: a certificate that was renewed is used at once."""
    if not peer.tls:
        return None
    if settings.tls_files is None:
        raise NoAnswer(f"{peer.ae_title} is called over TLS, and this box has no certificate")
    try:
        return calling_context(settings.tls_files, peer)
    except SettingsError as problem:
        raise NoAnswer(str(problem)) from problem


def _why_not(made: Association, peer: Peer, our_title: str, context: CallingContext | None) -> str:
    if made.rejected_contexts:
        name = made.rejected_contexts[0].abstract_syntax
        return f"it does not offer {name.name if name is not None else 'what was asked for'}"
    if made.is_rejected:
        return f"it rejects associations from {our_title}; check that it knows this AE title"
    if context is not None and context.problem:
        return f"no TLS with {peer.host}:{peer.port}: {context.problem}"
    return f"nobody answers at {peer.host}:{peer.port} as {peer.ae_title}"


def _send_without_delay(event: evt.Event) -> None:
    """Nagle's algorithm would hold back the end of each message until the node acknowledges what came before."""
    transport = event.assoc.dul.socket
    if transport is not None and transport.socket is not None:
        transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def status_words(status: int | None) -> str:
    """What a status of C-FIND, C-GET or C-MOVE means (PS3.4 Annex C.4), with its number."""
    if status is None:
        return "nothing: it broke off, or took longer than the time limit"
    meanings = {
        0x0110: "processing failure",
        0x0122: "SOP class not supported",
        0x0124: "not authorized",
        0xA701: "out of resources: it cannot count the matches",
        0xA702: "out of resources: it cannot send the objects",
        0xA801: "it does not know our title as a move destination; add this box there",
        0xA900: "it does not understand the question",
        0xB000: "some objects failed",
        0xFE00: "cancelled",
    }
    families = {0xA7: "out of resources", 0xA9: "it does not understand the question"}
    words = meanings.get(status) or families.get(status >> 8) or ("unable to process" if status >> 12 == 0xC else "")
    return f"0x{status:04X} ({words or 'failure'})"
