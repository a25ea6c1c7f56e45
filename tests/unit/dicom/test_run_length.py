import struct

import numpy as np
import pytest

from appliance.dicom.run_length import decode_rle


def frame(high: bytes, low: bytes, *, count: int = 2, gap: int = 0) -> bytes:
    header = struct.pack("<16L", count, 64, 64 + gap + len(high), *[0] * 13)
    return header + bytes(gap) + high + low


def test_literal_and_repeated_bytes_are_unpacked_and_joined() -> None:
    cells = decode_rle(frame(b"\x01\x12\x34\xfd\x56", b"\xfc\xab\x80\x00\xcd\x00"), 6)
    np.testing.assert_array_equal(cells, [0x12AB, 0x34AB, 0x56AB, 0x56AB, 0x56AB, 0x56CD])


@pytest.mark.parametrize(
    "broken",
    [
        frame(b"\xfe\x01", b"\xfe\x01", count=1),
        frame(b"\xfe\x01", b"\xff\x01"),
        frame(b"\xfe\x01", b"\xfd\x01"),
        frame(b"\xfe\x01", b"\x02\x01\x01"),
        frame(b"\xfe\x01", b"\xfe"),
        frame(b"", b"\xfe\x01"),
        struct.pack("<16L", 2, 66, 64, *[0] * 13) + b"\xfe\x01\xfe\x01",
        struct.pack("<16L", 2, 64, 0xFFFFFFFF, *[0] * 13) + b"\xfe\x01\xfe\x01",
    ],
)
def test_segments_that_do_not_fill_the_image_exactly_are_refused(broken: bytes) -> None:
    with pytest.raises(ValueError, match="segment"):
        decode_rle(broken, 3)


def test_a_frame_without_a_header_is_refused() -> None:
    with pytest.raises(struct.error):
        decode_rle(b"\2\0", 3)
