"""Where the pixels of one CT image are stored, and in which form (PS3.3 §C.7.6.3, PS3.5 §8)."""

from dataclasses import dataclass

from appliance.dicom.header import Header, describe
from appliance.errors import Reason, SliceRefused

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.57"
JPEG_LOSSLESS_FIRST_ORDER = "1.2.840.10008.1.2.4.70"
JPEG_LS_LOSSLESS = "1.2.840.10008.1.2.4.80"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
RLE_LOSSLESS = "1.2.840.10008.1.2.5"

NATIVE_SYNTAXES = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
#: only lossless ones: a lossy image would shift the very edges that are to be contoured
COMPRESSED_SYNTAXES = (
    RLE_LOSSLESS,
    JPEG_LOSSLESS_FIRST_ORDER,
    JPEG_LOSSLESS,
    JPEG_LS_LOSSLESS,
    JPEG_2000_LOSSLESS,
)
ACCEPTED_SYNTAXES = (*NATIVE_SYNTAXES, *COMPRESSED_SYNTAXES)

MAX_SIDE = 4096  #: rows or columns; CT matrices end at 2048
BITS_ALLOCATED = 16  #: PS3.3 §C.8.2.1 allows nothing else for CT
BYTES_PER_PIXEL = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelLayout:
    """Where and how the pixels of one image are stored.

    Attributes:
        offset: where the value of Pixel Data begins in the file.
        length: bytes to read from there; for compressed pixels up to the end of the file.
        bits_stored: bits of each 16-bit cell that hold the value; the bits above them are not part of it.
        signed: whether the value is a two's complement number.
    """

    transfer_syntax_uid: str
    offset: int
    length: int
    rows: int
    columns: int
    bits_stored: int
    signed: bool


def read_pixel_layout(header: Header, file_size: int) -> PixelLayout:
    """Check the Image Pixel elements against what can be decoded, and against the size of the file.

    Raises:
        SliceRefused: ELEMENT_MISSING, ELEMENT_INVALID, PIXELS_UNDECODABLE or PIXELS_TRUNCATED.
    """
    rows, columns = header.unsigned("Rows"), header.unsigned("Columns")
    bits_stored = header.unsigned("BitsStored")
    representation = header.unsigned("PixelRepresentation")
    frames = header.integer("NumberOfFrames")
    _expect("Rows", 0 < rows <= MAX_SIDE, rows)
    _expect("Columns", 0 < columns <= MAX_SIDE, columns)
    _expect("BitsStored", 1 < bits_stored <= BITS_ALLOCATED, bits_stored)
    _expect("PixelRepresentation", representation in (0, 1), representation)
    _expect("NumberOfFrames", frames in (None, 1), frames)
    for keyword, only in (("BitsAllocated", BITS_ALLOCATED), ("HighBit", bits_stored - 1), ("SamplesPerPixel", 1)):
        value = header.unsigned(keyword)
        _expect(keyword, value == only, value)
    offset, length = _locate(header, file_size, rows * columns * BYTES_PER_PIXEL)
    return PixelLayout(
        transfer_syntax_uid=header.transfer_syntax_uid,
        offset=offset,
        length=length,
        rows=rows,
        columns=columns,
        bits_stored=bits_stored,
        signed=representation == 1,
    )


def pixels_truncated(found: int, needed: int) -> SliceRefused:
    """Return the refusal of a file that holds fewer pixel bytes than it must."""
    return SliceRefused(
        Reason.PIXELS_TRUNCATED, f"the file holds {found} of {needed} bytes of pixels; send the slice again"
    )


def _locate(header: Header, file_size: int, native_length: int) -> tuple[int, int]:
    """Return offset and length of the pixels, once the file is known to hold them."""
    syntax = header.transfer_syntax_uid
    if syntax not in ACCEPTED_SYNTAXES:
        raise SliceRefused(
            Reason.PIXELS_UNDECODABLE,
            f"transfer syntax {syntax} is not accepted; send Explicit VR Little Endian or a lossless compression",
        )
    if header.pixel_offset is None:
        raise pixels_truncated(0, native_length)
    if (syntax in COMPRESSED_SYNTAXES) != (header.pixel_length is None):
        raise SliceRefused(
            Reason.PIXELS_UNDECODABLE, f"the pixels are not encoded as transfer syntax {syntax} says; send it again"
        )
    available = file_size - header.pixel_offset
    if header.pixel_length is None:
        return header.pixel_offset, available
    found = min(available, header.pixel_length)
    if found < native_length:
        raise pixels_truncated(found, native_length)
    return header.pixel_offset, native_length


def _expect(keyword: str, fits: bool, value: object) -> None:
    if not fits:
        raise SliceRefused(
            Reason.ELEMENT_INVALID, f"{describe(keyword)} is {value}, which a single-frame CT image cannot have"
        )
