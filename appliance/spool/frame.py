"""What the 128 bytes in front of a received object say of it, so that it can be told whole from torn, then and later.

PS3.10 §7.1 leaves the preamble to the application. Ours holds nothing that a peer has chosen but digests, and begins
with our own mark, so no file is mistaken for a program or a page.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import xxhash

PREAMBLE_BYTES = 128
_MARK = b"\x89DLN\r\n\x1a\x01"  # no text, no known kind of file; damaged by whatever converts line ends
_FIELDS = struct.Struct("<8sQQI16s")
_DIGEST_BYTES = 16
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Frame:
    """The frame of one object.

    Attributes:
        length: bytes of the whole file, preamble and all.
        received_ns: when it was whole, in nanoseconds since 1970.
        data_set_at: where the data set begins.
        digest: xxh3-128 of the data set.
    """

    length: int
    received_ns: int
    data_set_at: int
    digest: bytes

    def preamble(self, file_meta: bytes) -> bytes:
        """The preamble for a file whose bytes 128 to `data_set_at` are these; its last digest covers them as well."""
        fields = _FIELDS.pack(_MARK, self.length, self.received_ns, self.data_set_at, self.digest)
        return (fields + xxhash.xxh3_128_digest(fields + file_meta)).ljust(PREAMBLE_BYTES, b"\0")


def read_frame(head: bytes) -> Frame | None:
    """The frame of a file that begins with these bytes, preamble and File Meta Information at least; None without."""
    if len(head) < PREAMBLE_BYTES:
        return None
    mark, length, received_ns, data_set_at, digest = _FIELDS.unpack_from(head)
    if mark != _MARK or not PREAMBLE_BYTES <= data_set_at <= min(length, len(head)):
        return None
    frame = Frame(length, received_ns, data_set_at, digest)
    return frame if head[:PREAMBLE_BYTES] == frame.preamble(head[PREAMBLE_BYTES:data_set_at]) else None


def whole_frame(path: Path) -> Frame | None:
    """The frame of a file, if there is one and every byte that it speaks of is there as it was received."""
    with path.open("rb") as file:
        frame = read_frame(file.read(4096))
        if frame is None:
            return None
        file.seek(frame.data_set_at)
        found, left = xxhash.xxh3_128(), frame.length - frame.data_set_at
        while left and (piece := file.read(min(left, _PIECE_BYTES))):
            found.update(piece)
            left -= len(piece)
    return frame if left == 0 and found.digest() == frame.digest else None
