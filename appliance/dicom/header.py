"""The top-level elements of a DICOM file, read from bytes that nobody has vouched for.

Values stay as the bytes that the sender wrote until somebody asks for one, and then they are read by the grammar
of their value representation (PS3.5 §6.2): "nan" and "1_000" are no decimal strings, whatever `float` may think.
Whatever the bytes hold, only `SliceRefused` escapes.
"""

import re
import struct
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from math import isfinite

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.errors import InvalidDicomError
from pydicom.filereader import data_element_generator, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from appliance.dicom.uid import is_valid_uid
from appliance.errors import Reason, SliceRefused

#: everything that pydicom raises on damaged bytes; found by fuzzing, kept complete by the fuzz tests
PARSE_ERRORS = (
    InvalidDicomError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,  # pydicom's word for a sequence that ends early; nothing here reads from a disk
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)

PIXEL_DATA = 0x7FE00010
_SENDER = 0x00020016
_FIRST_PIXEL_ELEMENT = 0x7FE00008  # float pixel data; the offset tables before it are ordinary elements
_MAX_DECIMAL_BYTES = 64  # PS3.5 allows 16; archives hold longer ones, written by careless anonymisers
DECIMAL = re.compile(rb" *[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)? *")
"""A decimal string (PS3.5 §6.2)."""
_INTEGER = re.compile(rb" *[+-]?[0-9]{1,12} *")


@dataclass(frozen=True, slots=True)
class Header:
    """The elements of one DICOM file up to its pixel data.

    Attributes:
        meta: file meta elements, raw bytes by tag.
        elements: top-level elements without sequences of undefined length, raw bytes by tag.
        transfer_syntax_uid: how the data set is encoded.
        pixel_offset: where the value of Pixel Data begins in the file; None without Pixel Data.
        pixel_length: its declared length in bytes; None where it is encapsulated (undefined length).
    """

    meta: Mapping[int, bytes]
    elements: Mapping[int, bytes]
    transfer_syntax_uid: str
    pixel_offset: int | None
    pixel_length: int | None

    def untouched(self, keyword: str) -> bytes:
        """Return the bytes of the element as they stand in the file; empty when it is absent."""
        return self.elements.get(_tag(keyword), b"")

    def raw(self, keyword: str) -> bytes:
        """Return the bytes of the element, without padding; empty when it is absent or empty."""
        return self.untouched(keyword).strip(b" \0")

    def required(self, keyword: str) -> bytes:
        """Return the bytes of an element that must hold something.

        Raises:
            SliceRefused: ELEMENT_MISSING, or UNREADABLE where the file ends before the element would come.
        """
        value = self.raw(keyword)
        if not value and self.pixel_offset is None and _tag(keyword) > max(self.elements, default=0):
            raise _unreadable(f"it ends before {describe(keyword)}, without any pixels")
        if not value:
            raise SliceRefused(
                Reason.ELEMENT_MISSING,
                f"{describe(keyword)} is missing or empty; check the sender's export or anonymisation",
            )
        return value

    def uid(self, keyword: str) -> str:
        """Return a required UID.

        Raises:
            SliceRefused: ELEMENT_MISSING or UID_INVALID.
        """
        text = self.required(keyword).decode("latin-1")
        if not is_valid_uid(text):
            raise SliceRefused(
                Reason.UID_INVALID,
                f"{describe(keyword)} is no valid UID (PS3.5 §9: digits and dots, no leading zeros, 64 at most)",
            )
        return text

    def decimals(self, keyword: str, count: int) -> tuple[float, ...]:
        """Return a required decimal string of `count` values (value representation DS).

        Raises:
            SliceRefused: ELEMENT_MISSING, ELEMENT_INVALID (another count) or DECIMAL_NOT_FINITE.
        """
        texts = self.required(keyword).split(b"\\")
        if len(texts) != count:
            raise SliceRefused(
                Reason.ELEMENT_INVALID, f"{describe(keyword)} holds {len(texts)} values where {count} belong"
            )
        return tuple(_decimal(keyword, text) for text in texts)

    def decimal(self, keyword: str) -> float:
        """Return a required decimal string of one value; raises as `decimals` does."""
        return self.decimals(keyword, 1)[0]

    def unsigned(self, keyword: str) -> int:
        """Return a required 16-bit number (value representation US, little endian).

        Raises:
            SliceRefused: ELEMENT_MISSING or ELEMENT_INVALID.
        """
        value = self.untouched(keyword)
        if not value:
            self.required(keyword)
        if len(value) != 2:
            raise SliceRefused(Reason.ELEMENT_INVALID, f"{describe(keyword)} holds {len(value)} bytes where 2 belong")
        return int.from_bytes(value, "little")

    def integer(self, keyword: str) -> int | None:
        """Return an optional integer string (value representation IS); None when it is absent or empty.

        Raises:
            SliceRefused: ELEMENT_INVALID.
        """
        value = self.raw(keyword)
        if not value:
            return None
        if not _INTEGER.fullmatch(value):
            raise SliceRefused(Reason.ELEMENT_INVALID, f"{describe(keyword)} is no whole number")
        return int(value)

    def text(self, keyword: str) -> str:
        """Return an optional text in its declared character set; bytes outside the set are replaced."""
        return decode_text(self.raw(keyword), self.raw("SpecificCharacterSet"))

    def meta_text(self, keyword: str) -> str:
        """Return an optional text of the file meta information."""
        return self.meta.get(_tag(keyword), b"").strip(b" \0").decode("ascii", errors="replace")


def decode_text(value: bytes, character_set: bytes) -> str:
    """Decode a text in the Specific Character Set that its file declares; bytes outside the set are replaced."""
    if value.isascii() and b"\x1b" not in value:
        return value.decode("ascii")
    declared = [part.strip().decode("latin-1") for part in character_set.split(b"\\")]
    with warnings.catch_warnings(action="ignore"):
        try:
            return decode_bytes(value, convert_encodings(declared), {*"\\^=\r\n\t\f"})
        except PARSE_ERRORS:
            return value.decode("latin-1")


def describe(keyword: str) -> str:
    """Name an element as people look it up: `PixelSpacing (0028,0030)`."""
    tag = _tag(keyword)
    return f"{keyword} ({tag >> 16:04X},{tag & 0xFFFF:04X})"


def read_header(content: bytes) -> Header:
    """Read everything before the pixel data of a DICOM file (PS3.10 §7).

    Raises:
        SliceRefused: UNREADABLE, for anything that is not a plain DICOM file. Deflated files are never unpacked.
    """
    stream = BytesIO(content)
    try:
        with warnings.catch_warnings(action="ignore"):
            read_preamble(stream, force=False)
            meta = _read_elements(stream, implicit=False, little=True, stop_at=0x00030000)
            syntax = meta.get(_tag("TransferSyntaxUID"), b"").strip(b" \0").decode("ascii")
            if not is_valid_uid(syntax) or syntax == DeflatedExplicitVRLittleEndian:
                raise _unreadable("its transfer syntax is missing, malformed or deflated")
            implicit = syntax == ImplicitVRLittleEndian
            little = syntax != ExplicitVRBigEndian
            elements = _read_elements(stream, implicit=implicit, little=little, stop_at=_FIRST_PIXEL_ELEMENT)
            offset, length = _find_pixels(stream, implicit=implicit, little=little)
    except PARSE_ERRORS as error:
        raise _unreadable(f"the parser stopped with {type(error).__name__}") from error
    return Header(meta, elements, syntax, offset, length)


def read_sender(beginning: bytes) -> str:
    """Return who sent a file, by its File Meta Information (PS3.10 §7.1), whatever the rest of it holds.

    Args:
        beginning: the first bytes of the file; what is cut off is not missed as long as the title is in them.

    Returns:
        Source Application Entity Title; empty where it cannot be found.
    """
    meta: dict[int, bytes] = {}
    stream = BytesIO(beginning)
    with warnings.catch_warnings(action="ignore"), suppress(*PARSE_ERRORS, SliceRefused):
        read_preamble(stream, force=False)
        for element in data_element_generator(stream, False, True, lambda tag, _vr, _length: tag > _SENDER):
            if isinstance(element, RawDataElement):
                meta[int(element.tag)] = element.value or b""
    return meta.get(_SENDER, b"").strip(b" \0").decode("ascii", errors="replace")


def _read_elements(stream: BytesIO, *, implicit: bool, little: bool, stop_at: int) -> dict[int, bytes]:
    """Collect raw values up to the first tag at or beyond `stop_at`, and leave the stream there."""
    values: dict[int, bytes] = {}
    for element in data_element_generator(stream, implicit, little, lambda tag, _vr, _length: tag >= stop_at):
        if not isinstance(element, RawDataElement):
            continue  # a sequence of undefined length, which holds nothing that is asked for here
        value = element.value or b""
        if element.tag in values:
            raise _unreadable(f"element {element.tag} occurs twice")
        if element.length not in (len(value), 0xFFFFFFFF):
            raise _unreadable(f"it ends within element {element.tag}")
        values[int(element.tag)] = value
    return values


def _find_pixels(stream: BytesIO, *, implicit: bool, little: bool) -> tuple[int | None, int | None]:
    """Return offset and length of the value of Pixel Data where the stream stands at it."""
    start = stream.tell()
    order = "<" if little else ">"
    head = stream.read(12)
    if len(head) < 12:
        return None, None
    group, element = struct.unpack_from(order + "HH", head)
    if (group << 16 | element) != PIXEL_DATA:
        return None, None
    if not implicit and head[4:6] not in (b"OW", b"OB", b"UN"):
        raise _unreadable("its Pixel Data has an unknown value representation")
    length_at = 4 if implicit else 8
    (length,) = struct.unpack_from(order + "L", head, length_at)
    return start + length_at + 4, None if length == 0xFFFFFFFF else length


def _decimal(keyword: str, text: bytes) -> float:
    if len(text) <= _MAX_DECIMAL_BYTES and DECIMAL.fullmatch(text):
        value = float(text)
        if isfinite(value):
            return value
    raise SliceRefused(
        Reason.DECIMAL_NOT_FINITE, f"{describe(keyword)} holds a value that is no finite decimal number (PS3.5 §6.2)"
    )


def _unreadable(why: str) -> SliceRefused:
    return SliceRefused(Reason.UNREADABLE, f"the file cannot be read as DICOM: {why}; send it again")


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return tag
