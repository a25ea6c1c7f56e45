"""Stored pixel values of one CT image, in every transfer syntax that the appliance accepts.

The JPEG decoders come from imagecodecs. Each was fuzzed, and only those that stay calm on damaged streams are used:
its `ljpeg` and `dicomrle` crash the process. No compression carries a checksum: a flipped bit can only be noticed
where it breaks the stream.
"""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import generate_frames

from appliance.dicom import pixel_layout
from appliance.dicom.codestream import Claim, claim_of_j2k, claim_of_jpeg
from appliance.dicom.header import PARSE_ERRORS
from appliance.dicom.pixel_layout import BITS_ALLOCATED, PixelLayout, pixels_truncated
from appliance.dicom.run_length import decode_rle
from appliance.errors import Reason, SliceRefused

#: the decoders' own errors all descend from RuntimeError
_DECODE_ERRORS = (*PARSE_ERRORS, RuntimeError, StopIteration)


def decode_pixels(path: Path, layout: PixelLayout) -> NDArray[np.int16] | NDArray[np.uint16]:
    """Return the stored values of one image, shape (rows, columns), int16 where they are signed, else uint16.

    Raises:
        SliceRefused: PIXELS_TRUNCATED or PIXELS_UNDECODABLE.
        OSError: the file itself cannot be read.
    """
    with path.open("rb") as file:
        file.seek(layout.offset)
        stored = file.read(layout.length)
    if len(stored) < layout.length:
        raise pixels_truncated(len(stored), layout.length)
    cells = _DECODERS[layout.transfer_syntax_uid](stored, layout)
    unused = BITS_ALLOCATED - layout.bits_stored
    # shifting up and down again clears the bits above the value, or copies its sign into them
    if layout.signed:
        return np.asarray((cells.view(np.int16) << unused) >> unused)
    return np.asarray((cells << unused) >> unused)


def _decode_native(stored: bytes, layout: PixelLayout) -> NDArray[np.uint16]:
    return np.frombuffer(stored, dtype="<u2").reshape(layout.rows, layout.columns)


def _decode_rle(stored: bytes, layout: PixelLayout) -> NDArray[np.uint16]:
    try:
        return decode_rle(_frame(stored), layout.rows * layout.columns).reshape(layout.rows, layout.columns)
    except _DECODE_ERRORS as error:
        raise _undecodable(layout) from error


def _decode_jpeg_lossless(stored: bytes, layout: PixelLayout) -> NDArray[np.uint16]:
    return _decode_claimed(stored, layout, claim_of_jpeg, imagecodecs.jpegsof3_decode)


def _decode_jpeg_ls(stored: bytes, layout: PixelLayout) -> NDArray[np.uint16]:
    return _decode_claimed(stored, layout, claim_of_jpeg, imagecodecs.jpegls_decode)


def _decode_jpeg_2000(stored: bytes, layout: PixelLayout) -> NDArray[np.uint16]:
    return _decode_claimed(stored, layout, claim_of_j2k, imagecodecs.jpeg2k_decode)


def _decode_claimed(
    stored: bytes,
    layout: PixelLayout,
    claim_of: Callable[[bytes], Claim | None],
    decode: Callable[[bytes], NDArray[np.generic]],
) -> NDArray[np.uint16]:
    """Decode a stream whose own header agrees with the DICOM header, and no other."""
    try:
        frame = _frame(stored)
        claim = claim_of(frame)
        if claim is None or claim[:3] != (layout.rows, layout.columns, 1) or claim.bits > BITS_ALLOCATED:
            raise _undecodable(layout)
        image = decode(frame)
    except _DECODE_ERRORS as error:
        raise _undecodable(layout) from error
    if image.shape != (layout.rows, layout.columns) or not _sign_fits(image.dtype.kind, claim, layout):
        raise _undecodable(layout)
    return image.astype(np.int16 if image.dtype.kind == "i" else np.uint16).view(np.uint16)


def _sign_fits(kind: str, claim: Claim, layout: PixelLayout) -> bool:
    """Tell whether the sign is right: an unsigned stream may hold two's complement of exactly the bits stored."""
    if kind == "i":
        return layout.signed
    return kind == "u" and (not layout.signed or claim.bits >= layout.bits_stored)


def _frame(stored: bytes) -> bytes:
    """Join the fragments of the only frame (PS3.5 §A.4)."""
    with warnings.catch_warnings(action="ignore"):
        return next(generate_frames(stored, number_of_frames=1))


def _undecodable(layout: PixelLayout) -> SliceRefused:
    return SliceRefused(
        Reason.PIXELS_UNDECODABLE,
        f"the compressed pixels ({layout.transfer_syntax_uid}) are damaged, or not of the size and sign that the "
        "header gives; send the slice again, uncompressed if that does not help",
    )


_DECODERS: Mapping[str, Callable[[bytes, PixelLayout], NDArray[np.uint16]]] = MappingProxyType(
    {
        pixel_layout.IMPLICIT_VR_LITTLE_ENDIAN: _decode_native,
        pixel_layout.EXPLICIT_VR_LITTLE_ENDIAN: _decode_native,
        pixel_layout.JPEG_LOSSLESS: _decode_jpeg_lossless,
        pixel_layout.JPEG_LOSSLESS_FIRST_ORDER: _decode_jpeg_lossless,
        pixel_layout.JPEG_LS_LOSSLESS: _decode_jpeg_ls,
        pixel_layout.JPEG_2000_LOSSLESS: _decode_jpeg_2000,
        pixel_layout.RLE_LOSSLESS: _decode_rle,
    }
)
