"""Whatever bytes a file holds, a slice is parsed or refused; nothing else may happen, and it may not take long."""

import random
import struct
from pathlib import Path

import pytest

from appliance.dicom.ct_slice import parse_slice
from appliance.dicom.identity import read_identity
from appliance.dicom.pixel_codecs import decode_pixels
from appliance.dicom.pixel_layout import ACCEPTED_SYNTAXES, EXPLICIT_VR_LITTLE_ENDIAN
from appliance.errors import Reason, SliceRefused
from tests.support.ct_files import compress, make_ct_series

SEQUENCE_HEAD = struct.pack("<HH2sxxL", 0x0009, 0x1001, b"SQ", 0xFFFFFFFF)
ITEM_HEAD = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)


@pytest.fixture(scope="module", params=ACCEPTED_SYNTAXES)
def good_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = make_ct_series(tmp_path_factory.mktemp("good"), slices=1, rows=16, columns=20)[0]
    return (path if request.param == EXPLICIT_VR_LITTLE_ENDIAN else compress(path, request.param)).read_bytes()


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Cut, overwrite, insert, remove or repeat something, mostly in the header."""
    broken = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(broken) if rng.random() < 0.3 else min(len(broken), 1400))
        match rng.randrange(6):
            case 0:
                del broken[at:]
            case 1:
                broken[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"SQ\0\0", b"\xfe\xff\0\xe0"])
            case 2:
                broken[at:at] = rng.randbytes(rng.randint(1, 9))
            case 3:
                del broken[at : at + rng.randint(1, 9)]
            case 4:
                broken[at:at] = broken[at : at + rng.randint(1, 40)]
            case _:
                broken[at] = rng.randrange(256)
        if not broken:
            break
    return bytes(broken)


def read_all(path: Path) -> None:
    """Read a file in every way in which the appliance does."""
    read_identity(path)
    one = parse_slice(path)
    decode_pixels(one.path, one.pixels)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_are_refused_and_nothing_else(good_file: bytes, seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)  # damage need not be secret
    path = tmp_path / "damaged.dcm"
    refused = 0
    for _ in range(150):
        path.write_bytes(damaged(good_file, rng))
        try:
            read_all(path)
        except SliceRefused:
            refused += 1
    assert refused > 30


@pytest.mark.parametrize("content", [b"", b"DICM", bytes(132), bytes(128) + b"DICM", b"\xff" * 4096, b"PK\3\4" * 99])
def test_what_was_never_dicom_is_unreadable(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "not.dcm"
    path.write_bytes(content)
    for read in (parse_slice, read_identity):
        with pytest.raises(SliceRefused) as refusal:
            read(path)
        assert refusal.value.reason is Reason.UNREADABLE


def test_sequences_nested_without_end_are_unreadable(tmp_path: Path) -> None:
    path = make_ct_series(tmp_path, slices=1)[0]
    content = path.read_bytes()
    at = content.index(b"\x10\x00\x10\x00PN")  # before the patient's name
    path.write_bytes(content[:at] + (SEQUENCE_HEAD + ITEM_HEAD) * 20_000 + content[at:])
    with pytest.raises(SliceRefused) as refusal:
        parse_slice(path)
    assert refusal.value.reason is Reason.UNREADABLE


def test_a_sequence_that_ends_within_an_item_is_unreadable(tmp_path: Path) -> None:
    path = make_ct_series(tmp_path, slices=1)[0]
    content = path.read_bytes()
    at = content.index(b"\x10\x00\x10\x00PN")
    path.write_bytes(content[:at] + SEQUENCE_HEAD + b"\xfe\xff\x00")
    with pytest.raises(SliceRefused) as refusal:
        parse_slice(path)
    assert refusal.value.reason is Reason.UNREADABLE


def test_an_element_that_claims_more_bytes_than_there_are_is_unreadable(tmp_path: Path) -> None:
    path = make_ct_series(tmp_path, slices=1)[0]
    content = path.read_bytes()
    at = content.index(b"\x10\x00\x10\x00PN")
    path.write_bytes(content[:at] + struct.pack("<HH2sxxL", 0x0009, 0x1001, b"OB", 0xFFFFFFF0) + bytes(8))
    with pytest.raises(SliceRefused, match="ends within element") as refusal:
        parse_slice(path)
    assert refusal.value.reason is Reason.UNREADABLE


def test_an_element_that_occurs_twice_is_unreadable(tmp_path: Path) -> None:
    path = make_ct_series(tmp_path, slices=1)[0]
    content = path.read_bytes()
    at = content.index(b"\x10\x00\x20\x00LO")  # Patient ID
    again = content[at : at + 8 + 10]
    path.write_bytes(content[:at] + again + content[at:])
    with pytest.raises(SliceRefused, match="occurs twice"):
        parse_slice(path)


def test_a_deflated_file_is_never_unpacked(tmp_path: Path) -> None:
    path = make_ct_series(tmp_path, slices=1)[0]
    content = path.read_bytes()
    plain, deflated = b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99"
    at = content.index(plain)
    length = struct.pack("<H", len(deflated))
    path.write_bytes(content[: at - 2] + length + deflated + content[at + len(plain) :])
    with pytest.raises(SliceRefused, match="deflated"):
        read_identity(path)
