"""Objects that are made to harm whoever reads them: small on the wire, large or endless once they are read."""

import struct
import zlib
from pathlib import Path

_PIECE = 1 << 24


def deflated_bomb(good: Path, size: int) -> bytes:
    """A data set of zeros, deflated (PS3.5 A.5), that takes `size` bytes once it is unpacked."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    piece = packer.compress(bytes(_PIECE)) + packer.flush(zlib.Z_FULL_FLUSH)  # such pieces can be put in a row
    packed = piece * (size // _PIECE) + zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS).flush()
    return _meta(good, b"1.2.840.10008.1.2.1.99") + packed


def nested_sequences(good: Path, depth: int) -> bytes:
    """A data set with a private sequence in a sequence, `depth` deep, of undefined lengths (PS3.5 7.5)."""
    begin = struct.pack("<HH2sHI", 0x0009, 0x1001, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    end = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return _meta(good, b"1.2.840.10008.1.2.1") + begin * depth + end * depth


def rle_bomb(good: Path, side: int, runs: int) -> bytes:
    """A CT image that claims `side` x `side` pixels in RLE segments of which each run says 128 bytes with two."""
    segment = b"\x81\x00" * runs
    header = struct.pack("<16I", 2, 64, 64 + len(segment), *[0] * 13)
    frame = header + segment * 2
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(frame)) + frame
    pixels = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, 0xFFFFFFFF)
    pixels += struct.pack("<HHI", 0xFFFE, 0xE000, 0) + item + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return _meta(good, b"1.2.840.10008.1.2.5") + _sized(_elements(good), side) + pixels


def claimed_size(good: Path, side: int) -> bytes:
    """A CT image that claims `side` x `side` pixels and holds those of the good one."""
    content = good.read_bytes()
    return content[: _end_of_meta(content)] + _sized(content[_end_of_meta(content) :], side)


def endless_value(good: Path) -> bytes:
    """A data set whose first element claims nearly 4 GiB and holds eight bytes."""
    element = struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, 0xFFFFFFF0) + bytes(8)
    return _meta(good, b"1.2.840.10008.1.2.1") + element


def _end_of_meta(content: bytes) -> int:
    return 144 + int.from_bytes(content[140:144], "little")


def _elements(good: Path) -> bytes:
    """The data set of the good one up to its pixels."""
    content = good.read_bytes()
    return content[_end_of_meta(content) : content.index(struct.pack("<HH", 0x7FE0, 0x0010))]


def _sized(elements: bytes, side: int) -> bytes:
    """Rows and columns that say `side`."""
    for element in (0x0010, 0x0011):
        place = elements.index(struct.pack("<HH2s", 0x0028, element, b"US")) + 8
        elements = elements[:place] + struct.pack("<H", side) + elements[place + 2 :]
    return elements


def _meta(good: Path, syntax: bytes) -> bytes:
    """The preamble and File Meta Information of the good one with another transfer syntax."""
    content = good.read_bytes()
    meta = content[: _end_of_meta(content)]
    tag = meta.index(struct.pack("<HH2s", 0x0002, 0x0010, b"UI"))
    length = int.from_bytes(meta[tag + 6 : tag + 8], "little")
    syntax += b"\0" * (len(syntax) % 2)
    meta = meta[: tag + 6] + struct.pack("<H", len(syntax)) + syntax + meta[tag + 8 + length :]
    group = int.from_bytes(content[140:144], "little") + len(syntax) - length
    return meta[:140] + struct.pack("<I", group) + meta[144:]
