import struct

import pytest

from appliance.dicom.codestream import Claim, claim_of_j2k, claim_of_jpeg


def j2k(*, size: tuple[int, int], start: int = 0, tile: tuple[int, int], tile_start: int = 0, depth: int = 15) -> bytes:
    """Return the beginning of a JPEG 2000 codestream of one component."""
    fields = (*size, start, start, *tile, tile_start, tile_start, 1, depth)
    return b"\xff\x4f\xff\x51" + struct.pack(">HH", 41, 0) + struct.pack(">8LHB", *fields)


def jpeg(marker: int, *segments: bytes) -> bytes:
    """Return a JPEG stream with segments before its frame header, and nothing in its scan."""
    frame = struct.pack(">BBHBHHB", 0xFF, marker, 11, 12, 32, 40, 1) + bytes(3)
    return b"\xff\xd8" + b"".join(segments) + frame + b"\xff\xd9"


def test_the_size_of_a_j2k_image_is_read() -> None:
    assert claim_of_j2k(j2k(size=(40, 32), tile=(40, 32))) == Claim(32, 40, 1, 16)
    assert claim_of_j2k(j2k(size=(40, 32), tile=(16, 16), depth=0x8B)) == Claim(32, 40, 1, 12)


@pytest.mark.parametrize(
    "stream",
    [
        b"\0\0\0\x0cjP  ",
        j2k(size=(40, 32), tile=(40, 32), start=1),
        j2k(size=(40, 32), tile=(40, 32), tile_start=1),
        j2k(size=(40, 32), tile=(0, 32)),
        j2k(size=(512, 512), tile=(1, 1)),
    ],
)
def test_a_j2k_image_of_an_unusual_layout_is_not_taken(stream: bytes) -> None:
    assert claim_of_j2k(stream) is None


@pytest.mark.parametrize("marker", [0xC3, 0xF7])
def test_the_size_of_a_jpeg_image_is_read_behind_other_segments(marker: int) -> None:
    comment = b"\xff\xfe" + struct.pack(">H", 6) + b"text"
    assert claim_of_jpeg(jpeg(marker)) == claim_of_jpeg(jpeg(marker, comment, comment)) == Claim(32, 40, 1, 12)
    assert claim_of_jpeg(jpeg(marker) + b"\0\0") == Claim(32, 40, 1, 12)


@pytest.mark.parametrize(
    "stream",
    [
        b"\xff\xd9",
        jpeg(0xC3)[:-2],
        jpeg(0xC3)[:-1],
        jpeg(0xC3, b"\xff\xda\x00\x02"),
        jpeg(0xC3, b"\xff\xfe\x00\x00"),
        jpeg(0xC3, b"text"),
    ],
)
def test_a_jpeg_stream_that_is_cut_or_damaged_is_not_taken(stream: bytes) -> None:
    assert claim_of_jpeg(stream) is None


def test_a_lossy_jpeg_stream_runs_out_before_a_frame_header_is_found() -> None:
    with pytest.raises(struct.error):
        claim_of_jpeg(jpeg(0xC0))
