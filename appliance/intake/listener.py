"""The DICOM listener: C-ECHO, C-STORE of CT images, and storage commitment reports for what we sent.

C-STORE success means kept: the data set's bytes are durable on disk before 0x0000 leaves (docs/adr/0003). Nothing
is parsed here, and receiving needs neither database nor broker; what else must be remembered is left as a note.
"""

from collections.abc import Mapping
from typing import Any, cast

import structlog
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
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
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.sop_class import CTImageStorage, StorageCommitmentPushModel, Verification  # type: ignore[attr-defined]
from pynetdicom.transport import ThreadedAssociationServer

from appliance import IMPLEMENTATION_CLASS_UID, __version__
from appliance.dicom.commitment_report import commitment_report
from appliance.dicom.uid import is_valid_uid
from appliance.settings import Settings
from appliance.spool import Spool

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

SUCCESS, OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000
"""C-STORE statuses, PS3.4 Table B.2-1."""

MAX_PDU_BYTES = 1 << 20
"""Largest PDU that we take; fewer, larger PDUs halve the cost of receiving with pynetdicom."""

log = structlog.get_logger()


class Listener:
    """The running C-STORE SCP of the appliance."""

    def __init__(self, settings: Settings, spool: Spool) -> None:
        self._settings = settings.intake
        self._known = sorted({peer.ae_title for peer in settings.peers.values()})
        self._spool = spool
        self._stored: dict[int, int] = {}  # association -> objects kept, for the note when it is aborted
        self._server: ThreadedAssociationServer | None = None

    def start(self) -> int:
        """Listen; returns the port.

        Raises:
            OSError: the address is in use or not allowed.
        """
        swept = self._spool.sweep()
        intake = self._settings
        ae = AE(ae_title=intake.ae_title)
        ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = f"DELINEATE_{__version__}"
        ae.maximum_associations = intake.max_associations
        ae.maximum_pdu_size = MAX_PDU_BYTES
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = intake.network_timeout_s
        ae.require_called_aet = True
        if intake.known_peers_only:
            ae.require_calling_aet = self._known or [intake.ae_title]  # an empty list would let everybody in
        ae.add_supported_context(Verification, list(_UNCOMPRESSED))
        ae.add_supported_context(CTImageStorage, list(TRANSFER_SYNTAXES))
        # PS3.4 J.3.3: the SCP reports on an association of its own and takes the SCP role by negotiation
        ae.add_supported_context(StorageCommitmentPushModel, list(_UNCOMPRESSED), scu_role=True, scp_role=True)
        server = ae.start_server((intake.host, intake.port), block=False, evt_handlers=self._handlers())
        self._server = cast(ThreadedAssociationServer, server)
        port: int = self._server.server_address[1]
        log.info("listening", ae_title=intake.ae_title, host=intake.host, port=port, swept=swept)
        return port

    def stop(self) -> None:
        """Stop accepting and close the associations that are left."""
        if self._server is not None:
            for association in self._server.active_associations:
                association.abort(block=False)
            self._server.shutdown()
            self._server = None

    def _handlers(self) -> list[tuple[Any, ...]]:
        return [
            (evt.EVT_C_ECHO, lambda _event: SUCCESS),
            (evt.EVT_C_STORE, self._keep),
            (evt.EVT_N_EVENT_REPORT, self._note_commitment),
            (evt.EVT_REJECTED, self._note_rejection),
            (evt.EVT_ABORTED, self._note_abort),
            (evt.EVT_ACCEPTED, self._begin),
            (evt.EVT_RELEASED, self._forget),
        ]

    def _keep(self, event: evt.Event) -> int:
        """Make the object durable, then answer."""
        request = cast(C_STORE, event.request)
        source = event.assoc.requestor.ae_title
        uid = str(request.AffectedSOPInstanceUID or "")
        if self._spool.free_mb() < self._settings.free_space_reserve_mb:
            return self._refuse(
                source,
                OUT_OF_RESOURCES,
                "the spool has less free space than its reserve; free some and send again",
            )
        syntax = str(event.context.transfer_syntax)
        meta = _file_meta(str(request.AffectedSOPClassUID), uid, syntax, source, self._settings.ae_title)
        try:
            self._spool.keep(meta, event.encoded_dataset(include_meta=False), syntax)
        except OSError as error:
            return self._refuse(
                source, OUT_OF_RESOURCES, f"the spool could not keep it ({error.strerror}); send it again"
            )
        if not is_valid_uid(uid):
            return self._refuse(
                source, CANNOT_UNDERSTAND, "the SOP Instance UID is not a valid UID; correct it at the sender"
            )
        self._stored[id(event.assoc)] = self._stored.get(id(event.assoc), 0) + 1
        return SUCCESS

    def _refuse(self, source_ae: str, status: int, sentence: str) -> int:
        fields = {"source_ae": source_ae, "status": f"0x{status:04X}", "sentence": sentence}
        log.warning("object_refused", status=fields["status"])
        self._note("object_refused", fields)
        return status

    def _note_commitment(self, event: evt.Event) -> tuple[int, Dataset | None]:
        """PS3.4 J.3.3: what the destination of a result says about keeping it."""
        self._spool.leave_note("commitment", commitment_report(event.event_information))
        return SUCCESS, None

    def _note_rejection(self, event: evt.Event) -> None:
        caller = event.assoc.requestor.ae_title
        if self._settings.known_peers_only and caller not in self._known:
            sentence = f"the AE title {caller!r} is not in peers.toml; add it there if this system may send"
        else:
            sentence = "wrong called AE title, or too many associations at once"
        self._note("association_refused", {"source_ae": caller, "sentence": sentence})

    def _note_abort(self, event: evt.Event) -> None:
        stored = self._stored.pop(id(event.assoc), 0)
        self._note("association_aborted", {"source_ae": event.assoc.requestor.ae_title, "stored": stored})

    def _begin(self, event: evt.Event) -> None:
        self._stored[id(event.assoc)] = 0

    def _forget(self, event: evt.Event) -> None:
        self._stored.pop(id(event.assoc), None)

    def _note(self, event: str, fields: Mapping[str, object]) -> None:
        try:
            self._spool.leave_note("audit", {"event": event, **fields})
        except OSError:
            log.exception("note_lost", note=event)


def _file_meta(sop_class_uid: str, sop_instance_uid: str, syntax: str, source_ae: str, called_ae: str) -> bytes:
    """Preamble of zeros and File Meta Information (PS3.10 §7.1) with who sent it to whom."""
    meta = FileMetaDataset()
    meta.FileMetaInformationGroupLength = 0  # the writer puts the length in
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = UID(sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid)
    meta.TransferSyntaxUID = UID(syntax)
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.SourceApplicationEntityTitle = source_ae
    meta.ReceivingApplicationEntityTitle = called_ae
    buffer = DicomBytesIO()
    buffer.write(b"\0" * 128 + b"DICM")
    write_file_meta_info(buffer, meta, enforce_standard=False)
    return buffer.getvalue()
