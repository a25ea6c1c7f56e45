"""RLE Lossless (PS3.5 Annex G): PackBits, one segment for each byte of a pixel."""

import struct

import numpy as np
from numpy.typing import NDArray


def decode_rle(frame: bytes, pixels: int) -> NDArray[np.uint16]:
    """Return the cells of a frame of 16-bit pixels.

    Raises:
        ValueError: the frame is not of two segments, or a segment does not hold exactly one byte for each pixel.
        struct.error: the frame ends within its header.
    """
    count, high, low = struct.unpack_from("<3L", frame)
    if count != 2:
        raise ValueError("not two segments")
    cells = np.empty((pixels, 2), dtype=np.uint8)
    cells[:, 1] = np.frombuffer(_unpack(frame[high:low], pixels), dtype=np.uint8)
    cells[:, 0] = np.frombuffer(_unpack(frame[low:], pixels), dtype=np.uint8)
    return cells.view("<u2").ravel()


def _unpack(segment: bytes, size: int) -> bytearray:
    """Unpack one segment: n below 128 announces n + 1 bytes as they are, n above it one byte 257 - n times."""
    unpacked = bytearray()
    at = 0
    while len(unpacked) < size and at < len(segment):
        lead = segment[at]
        if lead < 128:
            unpacked += segment[at + 1 : at + 2 + lead]
            at += 2 + lead
        elif lead > 128:
            unpacked += segment[at + 1 : at + 2] * (257 - lead)
            at += 2
        else:
            at += 1
    if len(unpacked) != size or segment[at:].strip(b"\0\x80"):
        raise ValueError("a segment is too short or too long")
    return unpacked
