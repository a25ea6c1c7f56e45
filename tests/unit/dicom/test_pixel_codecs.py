"""Compressed pixels are decoded exactly or refused; a stream may not promise one size and bring another."""

import struct
import time
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames

from appliance.dicom.ct_slice import parse_slice
from appliance.dicom.pixel_codecs import decode_pixels
from appliance.dicom.pixel_layout import COMPRESSED_SYNTAXES
from appliance.errors import Reason, SliceRefused
from tests.support.ct_files import all_slices, compress, make_ct_series

JPEG_SYNTAXES = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80")
J2K = "1.2.840.10008.1.2.4.90"


def reason_of(path: Path) -> Reason:
    with pytest.raises(SliceRefused) as refusal:
        read_all(path)
    return refusal.value.reason


def read_all(path: Path) -> None:
    one = parse_slice(path)
    decode_pixels(one.path, one.pixels)


def with_frame(path: Path, change: Callable[[bytes], bytes]) -> Path:
    """Change the compressed stream of a file and wrap it up correctly again."""
    dataset = dcmread(path)
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    dataset.PixelData = encapsulate([change(frame)])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    return path


@pytest.mark.parametrize("syntax", COMPRESSED_SYNTAXES)
@pytest.mark.parametrize("keep", [0.02, 0.5, 0.9, 0.99])
def test_a_stream_cut_short_is_refused_at_once(tmp_path: Path, syntax: str, keep: float) -> None:
    path = compress(make_ct_series(tmp_path, slices=1)[0], syntax)
    with_frame(path, lambda frame: frame[: int(len(frame) * keep)])
    began = time.process_time()
    assert reason_of(path) is Reason.PIXELS_UNDECODABLE
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize("syntax", COMPRESSED_SYNTAXES)
def test_a_stream_of_another_size_than_the_header_says_is_refused(tmp_path: Path, syntax: str) -> None:
    def taller(_index: int, dataset: Dataset) -> None:
        dataset.Rows += 1
        dataset.PixelData += bytes(2 * dataset.Columns)

    small = compress(make_ct_series(tmp_path / "small", slices=1)[0], syntax)
    tall = compress(make_ct_series(tmp_path / "tall", slices=1, mutate=taller)[0], syntax)
    frame = next(generate_frames(dcmread(tall).PixelData, number_of_frames=1))
    assert reason_of(with_frame(small, lambda _: frame)) is Reason.PIXELS_UNDECODABLE


def test_a_stream_that_claims_a_huge_image_is_never_given_to_a_decoder(tmp_path: Path) -> None:
    def claim_huge_j2k(frame: bytes) -> bytes:
        huge = struct.pack(">LL", 60000, 60000)
        return frame[:8] + huge + frame[16:24] + huge + frame[32:]

    def claim_huge_jpeg(frame: bytes) -> bytes:
        size = struct.pack(">HH", 32, 40)
        assert frame.count(size) == 1
        return frame.replace(size, struct.pack(">HH", 65535, 65535))

    for number, (syntax, change) in enumerate(
        [(J2K, claim_huge_j2k), *((one, claim_huge_jpeg) for one in JPEG_SYNTAXES)]
    ):
        path = compress(make_ct_series(tmp_path / str(number), slices=1)[0], syntax)
        assert reason_of(with_frame(path, change)) is Reason.PIXELS_UNDECODABLE


@pytest.mark.parametrize("syntax", COMPRESSED_SYNTAXES)
@pytest.mark.parametrize("frame", [b"\0\0", b"\xff\xd8\xff\xd9", b"\xff\xd8\xff\xc3", b"\xff\x4f\xff\x51"])
def test_a_stream_that_is_none_is_refused(tmp_path: Path, syntax: str, frame: bytes) -> None:
    path = compress(make_ct_series(tmp_path, slices=1)[0], syntax)
    assert reason_of(with_frame(path, lambda _: frame)) is Reason.PIXELS_UNDECODABLE


def test_a_signed_stream_under_an_unsigned_header_is_refused(tmp_path: Path) -> None:
    def signed(_index: int, dataset: Dataset) -> None:
        dataset.PixelRepresentation = 1

    path = compress(make_ct_series(tmp_path, slices=1, mutate=signed)[0], J2K)
    dataset = dcmread(path)
    dataset.PixelRepresentation = 0
    dataset.save_as(path)
    assert reason_of(path) is Reason.PIXELS_UNDECODABLE


def test_a_short_unsigned_stream_cannot_stand_for_longer_signed_values(tmp_path: Path) -> None:
    path = make_ct_series(tmp_path, slices=1, mutate=all_slices(BitsStored=13, HighBit=12, PixelRepresentation=1))[0]
    compress(path, J2K)
    image = np.full((32, 40), 4095, dtype=np.uint16)
    twelve, thirteen = (
        imagecodecs.jpeg2k_encode(image, level=0, reversible=True, codecformat="j2k", bitspersample=bits)
        for bits in (12, 13)
    )
    read_all(with_frame(path, lambda _: thirteen))
    assert reason_of(with_frame(path, lambda _: twelve)) is Reason.PIXELS_UNDECODABLE


def test_a_lossy_syntax_is_refused_before_any_pixel_is_read(tmp_path: Path) -> None:
    path = compress(make_ct_series(tmp_path, slices=1)[0], "1.2.840.10008.1.2.4.70")
    path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.4.70", b"1.2.840.10008.1.2.4.51"))
    with pytest.raises(SliceRefused, match=r"1\.2\.840\.10008\.1\.2\.4\.51 is not accepted") as refusal:
        parse_slice(path)
    assert refusal.value.reason is Reason.PIXELS_UNDECODABLE


def test_native_pixels_under_a_compressed_syntax_are_refused(tmp_path: Path) -> None:
    path = make_ct_series(tmp_path, slices=1)[0]
    path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0"))
    assert reason_of(path) is Reason.PIXELS_UNDECODABLE


@pytest.mark.parametrize("syntax", COMPRESSED_SYNTAXES)
def test_a_stream_in_several_fragments_is_joined(tmp_path: Path, syntax: str) -> None:
    path = compress(make_ct_series(tmp_path, slices=1)[0], syntax)
    one = parse_slice(path)
    expected = decode_pixels(one.path, one.pixels)
    dataset = dcmread(path)
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    dataset.PixelData = encapsulate([frame], fragments_per_frame=3)
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    again = parse_slice(path)
    assert (decode_pixels(again.path, again.pixels) == expected).all()
