"""What a CT slice must hold, one broken element at a time."""

from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.dicom.ct_slice import CtSlice, parse_slice
from appliance.errors import Reason, SliceRefused
from tests.support.ct_files import all_slices, make_ct_series, truncate

Parse = Callable[..., CtSlice]
ReasonOf = Callable[..., Reason]


def test_a_correct_slice_gives_its_geometry_with_rows_and_columns_told_apart(tmp_path: Path) -> None:
    one = parse_slice(make_ct_series(tmp_path, slices=1, rows=6, columns=8, pixel_spacing_mm=(0.9, 1.3))[0])
    assert (one.rows, one.columns) == (6, 8)
    assert one.pixel_spacing_mm == (0.9, 1.3)
    assert one.position_mm == (-185.044, -311.319, -812.0)
    assert one.row_direction == (1.0, 0.0, 0.0)
    assert one.column_direction == (0.0, 1.0, 0.0)
    assert (one.rescale_slope, one.rescale_intercept) == (1.0, -1024.0)
    assert one.instance_number == 1


@pytest.mark.parametrize("text", [b"1", b" 1.0 ", b"+1.", b".1e1", b"1E0", b"100E-2", b"1.000000000000000000"])
def test_a_decimal_is_read_by_the_grammar_of_the_standard(parse_mutated: Parse, text: bytes) -> None:
    assert parse_mutated(all_slices(RescaleSlope=text)).rescale_slope == 1.0


@pytest.mark.parametrize(
    "text", [b"nan", b"inf", b"-inf", b"1e400", b"1_000", b"0x10", b"1,5", b"1 0", b"one", b"\xd9\xa1", b"1" * 65]
)
def test_what_is_no_finite_decimal_is_refused(reason_of: ReasonOf, text: bytes) -> None:
    assert reason_of(all_slices(RescaleSlope=text)) is Reason.DECIMAL_NOT_FINITE


def test_nan_in_a_position_is_refused(reason_of: ReasonOf) -> None:
    assert reason_of(all_slices(ImagePositionPatient=b"-185.0\\nan\\-812.0")) is Reason.DECIMAL_NOT_FINITE


@pytest.mark.parametrize(
    "keyword",
    [
        "SOPClassUID",
        "SOPInstanceUID",
        "SeriesInstanceUID",
        "StudyInstanceUID",
        "FrameOfReferenceUID",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "Rows",
        "Columns",
        "BitsAllocated",
        "BitsStored",
        "HighBit",
        "PixelRepresentation",
        "SamplesPerPixel",
        "RescaleSlope",
        "RescaleIntercept",
    ],
)
def test_an_element_that_the_geometry_or_the_result_needs_may_not_be_empty(reason_of: ReasonOf, keyword: str) -> None:
    assert reason_of(all_slices(**{keyword: b""})) is Reason.ELEMENT_MISSING


def test_the_sentence_names_the_missing_element_and_its_tag(parse_mutated: Parse) -> None:
    with pytest.raises(SliceRefused, match=r"PixelSpacing \(0028,0030\) is missing"):
        parse_mutated(all_slices(PixelSpacing=None))


@pytest.mark.parametrize(
    "changes",
    [
        {"Rows": 0},
        {"Columns": 4097},
        {"BitsAllocated": 8},
        {"BitsStored": 17},
        {"BitsStored": 1},
        {"HighBit": 15},
        {"PixelRepresentation": 2},
        {"SamplesPerPixel": 3},
        {"NumberOfFrames": 2},
        {"Rows": b"123"},
        {"NumberOfFrames": b"two"},
        {"RescaleSlope": 0},
        {"RescaleSlope": -1},
        {"RescaleType": "US"},
        {"PixelSpacing": [0, 1]},
        {"PixelSpacing": [1, 25]},
        {"PixelSpacing": [1, -1]},
        {"PixelSpacing": [1]},
        {"PixelSpacing": [1, 1, 1]},
        {"ImagePositionPatient": [0, 0, 1e6]},
        {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
        {"ImageOrientationPatient": [1, 0, 0, 0, 2, 0]},
        {"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]},
        {"ImageOrientationPatient": [1, 0, 0, 0.1, 0.995, 0]},
        {"StudyDescription": b"x" * 1026},
    ],
)
def test_a_value_outside_its_meaning_is_refused(reason_of: ReasonOf, changes: dict[str, object]) -> None:
    assert reason_of(all_slices(**changes)) is Reason.ELEMENT_INVALID


@pytest.mark.parametrize(
    "uid", [b"1.2.", b"../../../etc/passwd", b"1.02.3", b"1." + b"2" * 64, b"1.2.\xff", b"1.2\\1.3"]
)
def test_a_hostile_uid_is_refused(reason_of: ReasonOf, uid: bytes) -> None:
    assert reason_of(all_slices(FrameOfReferenceUID=uid)) is Reason.UID_INVALID


def test_a_file_that_holds_another_instance_than_it_was_sent_as_is_refused(tmp_path: Path) -> None:
    path = make_ct_series(tmp_path, slices=1)[0]
    content = path.read_bytes()
    uid = parse_slice(path).sop_instance_uid.encode()
    assert content.count(uid) == 2
    path.write_bytes(content.replace(uid, uid[:-1] + (b"1" if uid[-1:] != b"1" else b"2"), 1))
    with pytest.raises(SliceRefused) as refusal:
        parse_slice(path)
    assert refusal.value.reason is Reason.UID_INVALID


@pytest.mark.parametrize("sop_class", ["1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.4"])
def test_what_is_not_a_plain_ct_image_is_refused(reason_of: ReasonOf, sop_class: str) -> None:
    assert reason_of(all_slices(SOPClassUID=sop_class)) is Reason.SOP_CLASS_NOT_CT


def test_a_file_cut_within_its_pixels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SliceRefused, match=r"holds \d+ of 2560 bytes") as refusal:
        parse_slice(truncate(make_ct_series(tmp_path, slices=1)[0], keep=0.9))
    assert refusal.value.reason is Reason.PIXELS_TRUNCATED


def test_a_slice_without_pixels_is_refused(reason_of: ReasonOf) -> None:
    assert reason_of(all_slices(PixelData=None)) is Reason.PIXELS_TRUNCATED


def test_no_sentence_holds_the_name_of_the_patient(parse_mutated: Parse) -> None:
    with pytest.raises(SliceRefused) as refusal:
        parse_mutated(all_slices(PatientID=b"x" * 2000), patient_name="Secret^Name")
    assert "Secret" not in str(refusal.value)
    assert "xxx" not in str(refusal.value)


def test_an_unreadable_disk_is_not_blamed_on_the_slice(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        parse_slice(tmp_path / "gone.dcm")
