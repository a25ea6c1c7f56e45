"""What a compressed image claims about itself, read before any decoder is let near it.

Decoders allocate what the stream's own header asks for: a J2K image of 20 kB with four changed bytes made one of
them take 12 GB. So the claimed size must be the size that the DICOM header gives, or nothing is decoded.
"""

import struct
from typing import NamedTuple

_START_OF_IMAGE = b"\xff\xd8"
_END_OF_IMAGE = b"\xff\xd9"
_SOF_LOSSLESS = 0xC3  # ITU-T T.81 Table B.1: lossless, sequential, Huffman
_SOF_JPEG_LS = 0xF7  # ITU-T T.87 Table C.1
_START_OF_SCAN = 0xDA
_J2K_START = b"\xff\x4f\xff\x51"  # ITU-T T.800 §A.4.1, §A.5.1
_MAX_J2K_TILES = 1024


class Claim(NamedTuple):
    """Size of an image by its own header."""

    rows: int
    columns: int
    components: int
    bits: int


def claim_of_jpeg(stream: bytes) -> Claim | None:
    """Read the frame header of a complete JPEG lossless or JPEG-LS stream; None when it is none of those.

    A stream cut short has no end marker. One decoder fills the missing part with anything, the other spins for
    seconds, so neither gets to see it.

    Raises:
        struct.error: the stream ends within a header.
    """
    if not stream.startswith(_START_OF_IMAGE) or not stream.rstrip(b"\0").endswith(_END_OF_IMAGE):
        return None
    at = 2
    while True:
        lead, marker, length = struct.unpack_from(">BBH", stream, at)
        if lead != 0xFF or marker == _START_OF_SCAN:
            return None
        if marker in (_SOF_LOSSLESS, _SOF_JPEG_LS):
            bits, rows, columns, components = struct.unpack_from(">BHHB", stream, at + 4)
            return Claim(rows, columns, components, bits)
        at += 2 + length


def claim_of_j2k(stream: bytes) -> Claim | None:
    """Read the size segment of a JPEG 2000 codestream; None when it is no plain image of few tiles.

    Raises:
        struct.error: the stream ends within the segment.
    """
    if not stream.startswith(_J2K_START):
        return None
    width, height, left, top, tile_width, tile_height, tile_left, tile_top, components, depth = struct.unpack_from(
        ">8LHB", stream, 8
    )
    if left or top or tile_left or tile_top or not tile_width or not tile_height:
        return None
    tiles = -(-width // tile_width) * -(-height // tile_height)
    return None if tiles > _MAX_J2K_TILES else Claim(height, width, components, (depth & 0x7F) + 1)
