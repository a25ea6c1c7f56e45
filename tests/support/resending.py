"""A sender as patient as a PACS: what was not answered is sent again."""

from collections.abc import Sequence
from pathlib import Path

from appliance.delivery.store_scu import Caller, NotDelivered, send_files
from appliance.settings import Peer

_TIMES = 5


def send_until_taken(caller: Caller, peer: Peer, paths: Sequence[Path]) -> str:
    """C-STORE these files, all again if an answer is missing; the last status.

    On a busy machine pynetdicom's own reactor may take an answer from the one who waits for it (3.0.4,
    association.py, `_run_reactor`).

    Raises:
        NotDelivered: it was to no avail.
    """
    for _ in range(_TIMES - 1):
        try:
            return send_files(caller, peer, paths)
        except NotDelivered:
            continue
    return send_files(caller, peer, paths)
