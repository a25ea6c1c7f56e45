"""Asking a destination to commit to keeping what it accepted (PS3.4 Annex J, Storage Commitment Push Model).

The answer comes later, on an association that the destination opens to our listener (or on this one, for some); it
reaches the outbox as a note.
"""

import threading
from collections.abc import Callable

from pydicom import Dataset
from pydicom.sequence import Sequence
from pynetdicom import build_role, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance  # type: ignore[attr-defined]

from appliance.delivery.store_scu import UNCOMPRESSED, Caller, NeverDeliverable, NotDelivered
from appliance.dicom.commitment_report import commitment_report
from appliance.settings import Peer

REQUEST_STORAGE_COMMITMENT = 1
"""Action type ID, PS3.4 Table J.3.2-1."""

_LINGER_S = 0.2
"""A peer that reports on the association of the request does so at once; the others are not waited for longer."""


def request_commitment(
    caller: Caller,
    peer: Peer,
    instance: tuple[str, str],
    transaction_uid: str,
    on_report: Callable[[dict[str, object]], None],
) -> None:
    """Ask `peer` to commit to one object.

    Args:
        caller: who we are.
        peer: the destination.
        instance: SOP Class UID and SOP Instance UID of the object.
        transaction_uid: the name under which the destination will report.
        on_report: called with the report's fields when it comes on this same association.

    Raises:
        NotDelivered: the peer is away or does not offer storage commitment.
    """
    reported = threading.Event()

    def hear(event: evt.Event) -> tuple[int, None]:
        on_report(commitment_report(event.event_information))
        reported.set()
        return 0x0000, None

    ae = caller.application_entity()
    ae.add_requested_context(StorageCommitmentPushModel, UNCOMPRESSED)
    try:
        association = caller.associate(
            ae,
            peer,
            roles=[build_role(StorageCommitmentPushModel, scu_role=True)],
            handlers=[(evt.EVT_N_EVENT_REPORT, hear)],
        )
    except NeverDeliverable as problem:
        sentence = "it does not offer storage commitment; turn storage_commitment off in peers.toml"
        raise NotDelivered(sentence) from problem
    try:
        status, _ = association.send_n_action(
            _request(instance, transaction_uid),
            REQUEST_STORAGE_COMMITMENT,
            StorageCommitmentPushModel,
            StorageCommitmentPushModelInstance,
        )
        if status.get("Status") == 0x0000:
            reported.wait(_LINGER_S)
    except (RuntimeError, ValueError) as error:
        raise NotDelivered(f"the association broke while asking for storage commitment ({error})") from error
    finally:
        association.release()
    if status.get("Status") != 0x0000:
        raise NotDelivered(f"the request for storage commitment was answered 0x{status.get('Status', 0xFFFF):04X}")


def _request(instance: tuple[str, str], transaction_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = instance
    request = Dataset()
    request.TransactionUID = transaction_uid
    request.ReferencedSOPSequence = Sequence([item])
    return request
