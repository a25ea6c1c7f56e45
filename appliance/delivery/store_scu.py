"""Sending DICOM objects by C-STORE (PS3.4 Annex B), and asking whether a node is there (C-ECHO)."""

import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from weakref import WeakSet

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from appliance import IMPLEMENTATION_CLASS_UID, __version__
from appliance.delivery.checkpoint import watch_over
from appliance.errors import ApplianceError, SettingsError
from appliance.settings import Peer, Settings
from appliance.settings.tls import CallingContext, TlsFiles, calling_context

UNCOMPRESSED: list[str | UID] = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
"""Proposed for everything that is not an object; never Deflated, which inflates without bound."""


_HAS_IT_ALREADY = 0x0111
"""Duplicate SOP instance (PS3.7 C.4.1): our UIDs are derived, so what it has under this one is what we send. Whether it
keeps it is for commitment or a sighting to say, as after any answer."""


class NotDelivered(ApplianceError):
    """The peer did not take an object this time; the message says why and trying again may help."""


class PeerAway(NotDelivered):
    """The peer is not there, fell silent, or has no room: whatever else waits for it waits as well."""


class NeverDeliverable(ApplianceError):
    """The peer says that it will not take such an object; trying again will not help."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who we are to a peer."""

    ae_title: str
    network_timeout_s: float
    tls_files: TlsFiles | None = None  #: what we show and whom we trust, for peers with `tls`
    _calls: "WeakSet[Association]" = field(default_factory=WeakSet, compare=False, repr=False)

    @classmethod
    def of(cls, settings: Settings, network_timeout_s: float) -> Self:
        """The caller that this box is."""
        return cls(settings.intake.ae_title, network_timeout_s, settings.tls_files)

    def application_entity(self) -> AE:
        """A pynetdicom AE with our title, versions and time limits."""
        ae = AE(ae_title=self.ae_title)
        ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = f"DELINEATE_{__version__}"
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = self.network_timeout_s
        ae.connection_timeout = min(self.network_timeout_s, 5.0)
        return ae

    def associate(
        self,
        ae: AE,
        peer: Peer,
        *,
        roles: Iterable[SCP_SCU_RoleSelectionNegotiation] = (),
        handlers: Iterable[tuple[Any, ...]] = (),
    ) -> Association:
        """An association with `peer` for the contexts that `ae` asks for, over TLS where it has `tls`.

        Raises:
            PeerAway: nobody answers there, it is not who it should be, or it rejects us.
            NeverDeliverable: the peer takes none of the contexts.
        """
        context = self._context(peer)
        association = ae.associate(
            peer.host,
            peer.port,
            ae_title=peer.ae_title,
            ext_neg=list(roles),
            evt_handlers=[(evt.EVT_CONN_OPEN, self._begin), *handlers],
            tls_args=None if context is None else (context, peer.host),
        )
        if association.is_established:
            return association
        if association.rejected_contexts:  # all of them, or the association would have come about
            raise NeverDeliverable(_not_accepted(association.rejected_contexts[0].abstract_syntax))
        raise PeerAway(self._why_not(association, peer, context))

    def hang_up(self) -> None:
        """Cut every association that is open, from another thread; whoever waits on one is told that it broke."""
        for association in list(self._calls):
            transport = association.dul.socket
            if transport is not None and transport.socket is not None:
                with suppress(OSError):  # the other side was quicker
                    transport.socket.shutdown(socket.SHUT_RDWR)

    def _begin(self, event: evt.Event) -> None:
        self._calls.add(event.assoc)
        watch_over(event.assoc)
        _send_without_delay(event)

    def _context(self, peer: Peer) -> CallingContext | None:
        """What TLS needs, read anew for each call: a certificate that was renewed is used at once."""
        if not peer.tls:
            return None
        if self.tls_files is None:
            raise NotDelivered(f"{peer.ae_title} is called over TLS, and this caller has no certificate")
        try:
            return calling_context(self.tls_files, peer)
        except SettingsError as problem:
            raise NotDelivered(str(problem)) from problem

    def _why_not(self, association: Association, peer: Peer, context: CallingContext | None) -> str:
        if association.is_rejected:
            return f"it rejects associations from {self.ae_title}; check that it knows this AE title"
        if context is not None and context.problem:
            return f"no TLS with {peer.host}:{peer.port}: {context.problem}"
        over = "" if context is None else " over TLS; check also that it takes our certificate"
        return f"nobody answers at {peer.host}:{peer.port} as {peer.ae_title}{over}"


def send_files(
    caller: Caller, peer: Peer, paths: Iterable[Path], on_sent: Callable[[int], None] = lambda _count: None
) -> str:
    """Send DICOM files over one association; returns the last status, as 0xNNNN.

    Raises:
        NotDelivered: the peer is away, or answered that it cannot now.
        NeverDeliverable: the peer refuses the SOP class or the content of an object.
    """
    files = [(path, *_class_and_syntax(path)) for path in paths]
    ae = caller.application_entity()
    for sop_class, syntax in sorted({(sop_class, syntax) for _, sop_class, syntax in files}):
        ae.add_requested_context(sop_class, syntax)
    association = caller.associate(ae, peer)
    status = "0x0000"
    try:
        for count, (path, sop_class, syntax) in enumerate(files, 1):
            status = _send(association, path, sop_class, syntax)
            on_sent(count)
    finally:
        if association.is_established:
            association.release()
    return status


def echo(caller: Caller, peer: Peer) -> None:
    """C-ECHO.

    Raises:
        NotDelivered: the peer does not answer as it should.
    """
    ae = caller.application_entity()
    ae.add_requested_context(Verification, UNCOMPRESSED)
    association = caller.associate(ae, peer)
    try:
        status = association.send_c_echo().get("Status")
    finally:
        association.release()
    if status != 0x0000:
        raise NotDelivered(f"C-ECHO was answered {_words(status)}")


def _send_without_delay(event: evt.Event) -> None:
    """Nagle's algorithm holds back the end of each object for 40 ms, until the peer acknowledges what came before."""
    transport = event.assoc.dul.socket
    if transport is not None and transport.socket is not None:
        transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _send(association: Association, path: Path, sop_class: UID, syntax: UID) -> str:
    accepted = {(context.abstract_syntax, context.transfer_syntax[0]) for context in association.accepted_contexts}
    if (sop_class, syntax) not in accepted:
        raise NeverDeliverable(_not_accepted(sop_class, f" as {syntax.name}"))
    try:
        status = association.send_c_store(path).get("Status")
    except (RuntimeError, ValueError, OSError) as error:
        raise PeerAway(f"the association broke while sending ({error})") from error
    if status is None:
        raise PeerAway("C-STORE was answered by nothing: it broke off, or took longer than the time limit")
    if status in {0x0000, _HAS_IT_ALREADY} or status >> 12 == 0xB:
        return f"0x{status:04X}"
    if status >> 8 == 0xA9 or status >> 12 == 0xC or status == 0x0122:
        raise NeverDeliverable(f"C-STORE was answered {_words(status)}")
    sentence = f"C-STORE was answered {_words(status)}"
    raise PeerAway(sentence) if status >> 8 == 0xA7 else NotDelivered(sentence)


def _not_accepted(sop_class: UID | None, syntax: str = "") -> str:
    name = sop_class.name if sop_class is not None else "what was offered"
    return f"it does not accept {name}{syntax}; enable that at the destination"


def _words(status: int | None) -> str:
    if status is None:
        return "by nothing: it broke off, or took longer than the time limit"
    families = {0xA7: "out of resources", 0xA9: "data set does not match SOP class"}
    meanings = {0x0110: "processing failure", 0x0122: "SOP class not supported", 0x0124: "not authorized"}
    meaning = meanings.get(status) or families.get(status >> 8, "failure")
    meaning = "cannot understand" if status >> 12 == 0xC else meaning
    return f"0x{status:04X} ({meaning})"


def _class_and_syntax(path: Path) -> tuple[UID, UID]:
    try:
        header = dcmread(path, specific_tags=["SOPClassUID"], stop_before_pixels=True)
        sop_class, syntax = header.SOPClassUID, header.file_meta.TransferSyntaxUID
    except (InvalidDicomError, AttributeError) as error:
        raise NeverDeliverable(f"{path.name} is not a DICOM file that can be sent") from error
    except OSError as error:
        raise NotDelivered(f"{path.name} cannot be read ({error.strerror}); restore it from a backup") from error
    return sop_class, syntax


def series_of_file(path: Path) -> str:
    """Series Instance UID of an object that is to be looked for.

    Raises:
        NotDelivered: the file is gone or damaged.
    """
    try:
        return str(dcmread(path, specific_tags=["SeriesInstanceUID"], stop_before_pixels=True).SeriesInstanceUID)
    except (InvalidDicomError, AttributeError, OSError) as error:
        raise NotDelivered(f"{path.name} cannot be read; restore it from a backup") from error
