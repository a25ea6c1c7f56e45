"""File Meta Information (PS3.10 §7.1) of received objects: written without a library, and read back the same way."""

import struct
from functools import lru_cache
from pathlib import Path

from appliance import IMPLEMENTATION_CLASS_UID

_HEAD_BYTES = 4096
_GROUP_LENGTH_AT = 132
"""Behind the preamble and DICM."""

_TRANSFER_SYNTAX = 0x0010


def file_meta(sop_class_uid: str, sop_instance_uid: str, syntax: str, source_ae: str, called_ae: str) -> bytes:
    """DICM and the group, for behind the preamble, with who sent it to whom; texts are ASCII."""
    before, after = _the_same_for_all(sop_class_uid, syntax, source_ae, called_ae)
    elements = before + _text(0x0003, b"UI", sop_instance_uid) + after
    return b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(elements)) + elements


def read_syntax(path: Path) -> tuple[str, int]:
    """The transfer syntax of a received object, and where its data set begins.

    Raises:
        ValueError: its File Meta Information is not such as we write.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head[128:138] != b"DICM\x02\x00\x00\x00UL":
        raise ValueError("no File Meta Information")
    at = _GROUP_LENGTH_AT + 12
    end = at + int.from_bytes(head[140:144], "little")
    while at + 8 <= min(end, len(head)):
        _, element, vr, length = struct.unpack_from("<HH2sH", head, at)
        if vr == b"OB":  # its length takes four bytes, two further on
            at, length = at + 4, int.from_bytes(head[at + 8 : at + 12], "little")
        if element == _TRANSFER_SYNTAX:
            return head[at + 8 : at + 8 + length].rstrip(b"\0 ").decode("ascii", "replace"), end
        at += 8 + length
    raise ValueError("no transfer syntax in the File Meta Information")


@lru_cache(maxsize=16)
def _the_same_for_all(sop_class_uid: str, syntax: str, source_ae: str, called_ae: str) -> tuple[bytes, bytes]:
    """What stands before and behind the instance UID in all objects of an association."""
    version = struct.pack("<HH2sHI2s", 2, 0x0001, b"OB", 0, 2, b"\x00\x01")
    behind = (
        _text(_TRANSFER_SYNTAX, b"UI", syntax),
        _text(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
        _text(0x0016, b"AE", source_ae),
        _text(0x0018, b"AE", called_ae),
    )
    return version + _text(0x0002, b"UI", sop_class_uid), b"".join(behind)


def _text(element: int, vr: bytes, value: str) -> bytes:
    encoded = value.encode("ascii", "replace")
    encoded += (b"\0" if vr == b"UI" else b" ") * (len(encoded) % 2)
    return struct.pack("<HH2sH", 2, element, vr, len(encoded)) + encoded
