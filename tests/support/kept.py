"""What a spool holds after a fault, against what was acknowledged before it."""

from dataclasses import dataclass
from pathlib import Path

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from appliance.spool import Spool
from appliance.spool.frame import whole_frame
from tests.support.arriving import data_set_bytes
from tests.support.bare_peer import content_of


@dataclass(frozen=True)
class Kept:
    """The objects of `bare_peer` in a spool."""

    uids: frozenset[str]  #: that are there, byte for byte
    damaged: tuple[Path, ...]  #: files that hold something else than was sent, or are not whole

    @classmethod
    def of(cls, spool: Spool) -> "Kept":
        """What the queue holds."""
        uids, damaged = set(), []
        for arrival in spool.arrivals():
            try:
                uid = str(read_file_meta_info(arrival.path).MediaStorageSOPInstanceUID)
            except InvalidDicomError:
                uid = ""
            if whole_frame(arrival.path) is not None and data_set_bytes(arrival.path) == content_of(uid):
                uids.add(uid)
            else:
                damaged.append(arrival.path)
        return cls(frozenset(uids), tuple(damaged))
