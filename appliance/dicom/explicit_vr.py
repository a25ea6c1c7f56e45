"""Writing DICOM: Explicit VR Little Endian data sets (PS3.5 §7.1.2), for objects with pixels.

Elements are given by keyword, as for `implicit_vr`, which also puts the data set into a file.
"""

import struct
from collections.abc import Iterable

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from appliance.dicom.implicit_vr import Value, explicit_element, tag_and_vr

EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"


def data_set(**elements: Value) -> bytes:
    """Encode elements, given by keyword, in ascending order of their tags; sequences take encoded data sets.

    Raises:
        KeyError: a keyword that the data dictionary does not know.
        UnicodeEncodeError: a text of our own that is not ASCII.
    """
    encoded = sorted((tag_and_vr(keyword), value) for keyword, value in elements.items())
    return b"".join(explicit_element(tag, vr, value) for (tag, vr), value in encoded)


def coded(value: str, scheme: str, meaning: str) -> bytes:
    """Encode a coded concept (PS3.3 §8.8)."""
    return data_set(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def encoded(dataset: Dataset) -> bytes:
    """Encode a data set that a library made."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def pixel_data(length: int, parts: Iterable[bytes]) -> Iterable[bytes]:
    """Encode native Pixel Data of bytes, part by part, so that it is never held twice (PS3.5 §A.2).

    Args:
        length: bytes of all parts together.
        parts: the value.
    """
    padding = bytes(length % 2)
    yield struct.pack("<HH2sxxL", 0x7FE0, 0x0010, b"OB", length + len(padding))
    yield from parts
    yield padding
