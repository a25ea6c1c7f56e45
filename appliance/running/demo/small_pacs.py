"""A small PACS for the demo: C-ECHO, C-STORE to a folder, and storage commitment for what it stored.

It is a peer, not a part of the appliance: it speaks to it over the network alone.
"""

import threading
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import RTStructureSetStorage, SegmentationStorage
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    CTImageStorage,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    Verification,
)
from pynetdicom.transport import ThreadedAssociationServer

from appliance.dicom.identity import read_identity
from appliance.settings import Peer


class SmallPacs:
    """Stores what it is sent under its SOP Instance UID, and commits to it when asked."""

    def __init__(self, folder: Path, me: Peer, appliance: Peer) -> None:
        self.folder = folder
        self._me = me
        self._appliance = appliance
        self._server: ThreadedAssociationServer | None = None

    def start(self) -> None:
        """Listen on the port of its own entry."""
        self.folder.mkdir(parents=True, exist_ok=True)
        ae = AE(ae_title=self._me.ae_title)
        ae.add_supported_context(Verification)
        ae.add_supported_context(RTStructureSetStorage)
        ae.add_supported_context(SegmentationStorage)
        ae.add_supported_context(CTImageStorage)
        ae.add_supported_context(StorageCommitmentPushModel)
        handlers: list[Any] = [(evt.EVT_C_STORE, self._store), (evt.EVT_N_ACTION, self._commit)]
        self._server = ae.start_server((self._me.host, self._me.port), block=False, evt_handlers=handlers)

    def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.shutdown()

    def objects(self, modality: str) -> list[Path]:
        """What came back so far: RTSTRUCT or SEG."""
        return [path for path in sorted(self.folder.glob("*.dcm")) if read_identity(path).modality == modality]

    def _store(self, event: evt.Event) -> int:
        name = f"{event.request.AffectedSOPInstanceUID}.dcm"  # type: ignore[union-attr]
        (self.folder / name).write_bytes(event.encoded_dataset())
        return 0x0000

    def _commit(self, event: evt.Event) -> tuple[int, None]:
        """PS3.4 J.3.2: accept the request now, report on an association of our own."""
        threading.Thread(target=self._report, args=(event.action_information,), daemon=True).start()
        return 0x0000, None

    def _report(self, request: Dataset) -> None:
        items = list(request.ReferencedSOPSequence)
        kept = [item for item in items if (self.folder / f"{item.ReferencedSOPInstanceUID}.dcm").is_file()]
        report = Dataset()
        report.TransactionUID = request.TransactionUID
        report.ReferencedSOPSequence = Sequence(kept)
        if len(kept) < len(items):
            report.FailedSOPSequence = Sequence([item for item in items if item not in kept])
        ae = AE(ae_title=self._me.ae_title)
        ae.add_requested_context(StorageCommitmentPushModel)
        there = self._appliance
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        association = ae.associate(there.host, there.port, ae_title=there.ae_title, ext_neg=[role])
        if association.is_established:
            event_type = 1 if len(kept) == len(items) else 2  # PS3.4 Table J.3.3-1
            association.send_n_event_report(
                report, event_type, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
            )
            association.release()
