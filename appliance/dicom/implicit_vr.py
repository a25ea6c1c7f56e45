"""Writing DICOM: Implicit VR Little Endian data sets (PS3.5 §7.1.3) in a Part 10 file (PS3.10 §7).

Implicit VR, because in the explicit form a Contour Data value may not exceed 64 KB; `explicit_vr` writes what has
pixels. Elements are given by keyword, so that a module reads like its table in the standard. Texts of our own are
ASCII; bytes of a source are copied as they are, whatever their character set.
"""

import struct
from collections.abc import Sequence
from functools import cache
from typing import TypeAlias

from pydicom.datadict import dictionary_VR, tag_for_keyword

from appliance import IMPLEMENTATION_CLASS_UID

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
IMPLEMENTATION_VERSION_NAME = "DELINEATE"

#: a text, a whole number, raw bytes, the encoded items of a sequence, or several texts or numbers
Value: TypeAlias = str | int | bytes | Sequence[str] | Sequence[int] | Sequence[bytes]

_ITEM = struct.pack("<HH", 0xFFFE, 0xE000)
_BINARY_NUMBERS = {"US": "<H", "UL": "<L"}
_LONG_FORM = frozenset({"OB", "OW", "SQ", "UN", "UT"})
"""Representations whose length takes 32 bits in the explicit form, those that are written here (PS3.5 §7.1.2)."""


def data_set(**elements: Value) -> bytes:
    """Encode elements, given by keyword, in ascending order of their tags; sequences take encoded data sets.

    Raises:
        KeyError: a keyword that the data dictionary does not know.
        UnicodeEncodeError: a text of our own that is not ASCII.
    """
    encoded = sorted((tag_and_vr(keyword), value) for keyword, value in elements.items())
    return b"".join(_element(tag, vr, value) for (tag, vr), value in encoded)


def file_of(
    sop_class_uid: str, sop_instance_uid: str, content: bytes, transfer_syntax_uid: str = IMPLICIT_VR_LITTLE_ENDIAN
) -> bytes:
    """Put an encoded data set into a Part 10 file; the file meta information is always in explicit form."""
    meta = b"".join(
        explicit_element(*tag_and_vr(keyword), value)
        for keyword, value in (
            ("FileMetaInformationVersion", b"\0\1"),
            ("MediaStorageSOPClassUID", sop_class_uid),
            ("MediaStorageSOPInstanceUID", sop_instance_uid),
            ("TransferSyntaxUID", transfer_syntax_uid),
            ("ImplementationClassUID", IMPLEMENTATION_CLASS_UID),
            ("ImplementationVersionName", IMPLEMENTATION_VERSION_NAME),
        )
    )
    length = struct.pack("<HH2sHL", 0x0002, 0x0000, b"UL", 4, len(meta))
    return bytes(128) + b"DICM" + length + meta + content


@cache
def tag_and_vr(keyword: str) -> tuple[int, str]:
    """Return tag and value representation of an element.

    Raises:
        KeyError: a keyword that the data dictionary does not know.
    """
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return tag, dictionary_VR(tag)


def _element(tag: int, vr: str, value: Value) -> bytes:
    encoded = _value(vr, value)
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(encoded)) + encoded


def explicit_element(tag: int, vr: str, value: Value) -> bytes:
    """Encode an element with its value representation."""
    encoded = _value(vr, value)
    form = "<HH2sxxL" if vr in _LONG_FORM else "<HH2sH"
    return struct.pack(form, tag >> 16, tag & 0xFFFF, vr.encode(), len(encoded)) + encoded


def _value(vr: str, value: Value) -> bytes:
    """Encode a value to an even length, padded as its representation asks (PS3.5 §6.2)."""
    if isinstance(value, bytes):
        encoded = value
    elif isinstance(value, str):
        encoded = value.encode("ascii")
    elif isinstance(value, int):
        encoded = struct.pack(_BINARY_NUMBERS[vr], value) if vr in _BINARY_NUMBERS else b"%d" % value
    elif vr == "SQ":
        return b"".join(_ITEM + struct.pack("<L", len(item)) + item for item in value if isinstance(item, bytes))
    else:
        encoded = b"\\".join(str(one).encode("ascii") for one in value)
    return encoded + (b"\0" if vr in ("UI", "OB") else b" ") * (len(encoded) % 2)
