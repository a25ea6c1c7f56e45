"""Putting objects into the spool as the listener does, without a network."""

from collections.abc import Iterable
from pathlib import Path

from pydicom.filereader import read_file_meta_info
from pydicom.uid import CTImageStorage, ImplicitVRLittleEndian

from appliance.spool import Arrival, Spool
from appliance.spool.file_meta import file_meta


def data_set_bytes(path: Path) -> bytes:
    """What a sender puts on the wire: the file without preamble and File Meta Information (PS3.10 7.1)."""
    content = path.read_bytes()
    group_length = int.from_bytes(content[140:144], "little")
    return content[144 + group_length :]


def arrive(spool: Spool, path: Path, source_ae: str = "CT1") -> Arrival:
    """One file, received from `source_ae`."""
    meta = read_file_meta_info(path)
    syntax = str(meta.TransferSyntaxUID)
    sop_class_uid, sop_instance_uid = str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID)
    envelope = file_meta(sop_class_uid, sop_instance_uid, syntax, source_ae, "DELINEATE")
    return _keep(spool, envelope, data_set_bytes(path))


def arrive_bytes(spool: Spool, data_set: bytes, source_ae: str = "CT1") -> Arrival:
    """Bytes that somebody called a CT image, received from `source_ae`."""
    return _keep(spool, file_meta(CTImageStorage, "1.2.3", ImplicitVRLittleEndian, source_ae, "DELINEATE"), data_set)


def arrive_all(spool: Spool, paths: Iterable[Path]) -> list[Arrival]:
    """Several files, in this order."""
    return [arrive(spool, path) for path in paths]


def _keep(spool: Spool, envelope: bytes, data_set: bytes) -> Arrival:
    arrival = spool.keep(envelope, data_set)
    assert arrival.digest  # known from now on, also when the arrival is taken off the queue
    return arrival
