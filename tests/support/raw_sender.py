"""A C-STORE SCU that sends whatever it is told, right or wrong, and says what it was answered."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, Association, evt
from pynetdicom.dimse_primitives import C_STORE

from appliance.delivery.checkpoint import watch_over
from appliance.delivery.store_scu import _send_without_delay
from tests.support.arriving import data_set_bytes
from tests.support.waiting import wait_until


@contextmanager
def association(
    port: int,
    *,
    caller: str = "FAKEPACS",
    called: str = "DELINEATE",
    sop_class: str = CTImageStorage,
    syntax: str = ExplicitVRLittleEndian,
) -> Iterator[Association]:
    """An association with the appliance on `port`, established or not; released at the end unless it was aborted."""
    ae = AE(ae_title=caller)
    ae.add_requested_context(sop_class, syntax)
    ae.acse_timeout = ae.network_timeout = 10
    ae.dimse_timeout = 0.1  # how long one look for an answer takes
    quick = [(evt.EVT_CONN_OPEN, _send_without_delay), (evt.EVT_CONN_OPEN, lambda event: watch_over(event.assoc))]
    opened = ae.associate("127.0.0.1", port, ae_title=called, evt_handlers=quick)
    try:
        yield opened
    finally:
        if opened.is_established:
            opened.release()


def send_bytes(
    opened: Association, data_set: bytes, sop_instance_uid: str, sop_class: str = CTImageStorage
) -> int | None:
    """C-STORE these bytes under this UID, as they stand; the status, None when the peer answered nothing."""
    context = next(context for context in opened.accepted_contexts if context.abstract_syntax == sop_class)
    request = C_STORE()
    request.MessageID = 1
    request.AffectedSOPClassUID = UID(sop_class)
    request._affected_sop_instance_uid = UID(sop_instance_uid)  # past the checks that a careful sender makes
    request.Priority = 2
    request.DataSet = BytesIO(data_set)
    opened._reactor_checkpoint.clear()  # the answer is ours to read, once its own thread reads no more
    wait_until(lambda: opened._is_paused or not opened.is_established, 10, "the association's own thread to pause")
    try:
        opened.dimse.send_msg(request, context.context_id)
        answer = wait_until(lambda: _answer(opened), 10, "an answer to C-STORE")
    finally:
        opened._reactor_checkpoint.set()
    return answer[0]


def _answer(opened: Association) -> tuple[int | None] | None:
    """The status in a tuple; None in it when the peer broke off; None as long as there is nothing."""
    _, message = opened.dimse.get_msg(block=True)
    if message is not None:
        return (int(message.Status),)
    return (None,) if opened.acse.is_aborted() or not opened.dul.is_alive() else None


def send_file(opened: Association, path: Path, sop_instance_uid: str) -> int | None:
    """C-STORE a file's data set under a UID of our choice."""
    return send_bytes(opened, data_set_bytes(path), sop_instance_uid)
