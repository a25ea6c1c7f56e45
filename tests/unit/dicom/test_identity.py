from pathlib import Path

import pytest

from appliance.dicom.ct_slice import parse_slice
from appliance.dicom.identity import read_identity
from appliance.errors import Reason, SliceRefused
from tests.support.ct_files import all_slices, make_ct_series


def test_an_identity_holds_what_sorts_an_object(tmp_path: Path) -> None:
    identity = read_identity(make_ct_series(tmp_path, slices=1)[0])
    assert identity.sop_class_uid == "1.2.840.10008.5.1.4.1.1.2"
    assert identity.transfer_syntax_uid == "1.2.840.10008.1.2.1"
    assert (identity.patient_id, identity.modality, identity.body_part) == ("TEST-0001", "CT", "PELVIS")
    assert (identity.series_description, identity.accession_number) == ("Pelvis 3.0", "ACC1")
    assert (identity.source_ae, identity.called_ae) == ("", "")


def test_an_identity_tells_who_sent_the_object_and_to_whom(tmp_path: Path) -> None:
    def with_titles(_index: int, dataset: object) -> None:
        dataset.file_meta.SourceApplicationEntityTitle = "SCANNER"
        dataset.file_meta.ReceivingApplicationEntityTitle = "DELINEATE"

    identity = read_identity(make_ct_series(tmp_path, slices=1, mutate=with_titles)[0])
    assert (identity.source_ae, identity.called_ae) == ("SCANNER", "DELINEATE")


@pytest.mark.parametrize(
    ("charset", "name", "text"),
    [
        ("ISO_IR 100", "Müller".encode("latin-1"), "Müller"),
        ("ISO_IR 192", "Müller 東京".encode(), "Müller 東京"),
        ("\\ISO 2022 IR 87", b"Tokyo \x1b$BElBg\x1b(B", "Tokyo 東大"),
        ("GB18030", "骨盆".encode("gb18030"), "骨盆"),
        (None, b"plain", "plain"),
    ],
)
def test_texts_are_read_in_their_own_character_set(tmp_path: Path, charset: str | None, name: bytes, text: str) -> None:
    path = make_ct_series(
        tmp_path, slices=1, charset=charset and charset.split("\\"), mutate=all_slices(SeriesDescription=name)
    )[0]
    assert read_identity(path).series_description == text


@pytest.mark.parametrize(
    "charset", [b"ISO_IR 999", b"\xff\xfe        ", b"IR 87\\ISO_", b"utf_7     ", b"2022\\\\\\\\\\\\"]
)
def test_a_wrong_character_set_never_stops_the_reading(tmp_path: Path, charset: bytes) -> None:
    path = make_ct_series(tmp_path, slices=1, mutate=all_slices(SeriesDescription=b"M\xfcller \x1b$B"))[0]
    path.write_bytes(path.read_bytes().replace(b"ISO_IR 100", charset))
    assert read_identity(path).series_description.startswith("M")


def test_an_identity_does_not_need_a_geometry_or_pixels(tmp_path: Path) -> None:
    changes = all_slices(PixelData=None, ImagePositionPatient=None, SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3")
    assert read_identity(make_ct_series(tmp_path, slices=1, mutate=changes)[0]).sop_class_uid.endswith("481.3")


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"])
def test_an_object_that_cannot_be_sorted_is_refused(tmp_path: Path, keyword: str) -> None:
    path = make_ct_series(tmp_path, slices=1, mutate=all_slices(**{keyword: b"../x"}))[0]
    with pytest.raises(SliceRefused) as refusal:
        read_identity(path)
    assert refusal.value.reason is Reason.UID_INVALID


def test_a_file_that_ends_early_is_unreadable_wherever_it_is_cut(tmp_path: Path) -> None:
    whole = make_ct_series(tmp_path, slices=1)[0].read_bytes()
    pixels = whole.rindex(b"\xe0\x7f\x10\x00")
    for length in range(132, pixels):
        cut = tmp_path / "cut.dcm"
        cut.write_bytes(whole[:length])
        with pytest.raises(SliceRefused) as refused:
            parse_slice(cut)
        assert refused.value.reason in {Reason.UNREADABLE, Reason.PIXELS_TRUNCATED}, (length, str(refused.value))


def test_a_whole_file_that_lacks_an_element_is_not_called_unreadable(tmp_path: Path) -> None:
    path = make_ct_series(tmp_path, slices=1, mutate=all_slices(FrameOfReferenceUID=None))[0]
    with pytest.raises(SliceRefused) as refused:
        parse_slice(path)
    assert refused.value.reason is Reason.ELEMENT_MISSING
