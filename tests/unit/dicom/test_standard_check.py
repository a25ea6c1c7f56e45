"""dciodvfy's opinion as findings: of whatever it says, nothing of the patient's, and of a long file the short form."""

import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import FileDataset

from appliance.dicom.ct_series import CtSeries
from appliance.dicom.findings import Severity
from appliance.dicom.standard_check import Validator, abridged, standard_errors, standard_findings
from appliance.dicom.structure_check import check_structure_set
from appliance.dicom.structure_file import read_structure_file
from appliance.errors import ResultRefused
from tests.support.ct_files import all_slices, make_ct_series, read_series
from tests.support.foreign_structure_sets import FORMS, Form, foreign_structure_set, saved
from tests.support.structure_sets import KEYHOLE, sample_regions, structure_set_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom says that what it writes is wrong

SHAPE = (3, 12, 15)


def ct(folder: Path, **changes: object) -> tuple[list[Path], CtSeries]:
    paths = make_ct_series(folder, slices=3, rows=12, columns=15, **changes)
    return paths, read_series(paths)


def remarks(content: bytes) -> list[tuple[Severity, str]]:
    return [(one.severity, one.sentence) for one in standard_findings(content, read_structure_file(content))]


def changed(content: bytes, change: Callable[[FileDataset], object]) -> bytes:
    dataset = dcmread(BytesIO(content))
    change(dataset)
    return saved(dataset)


def test_nothing_is_said_of_our_own_files(tmp_path: Path) -> None:
    assert remarks(structure_set_of(ct(tmp_path)[1], sample_regions(SHAPE)).content) == []


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_short_form_is_the_same_file_with_three_points_of_each_contour(tmp_path: Path, form: Form) -> None:
    regions = {name: sample_regions(SHAPE)[name] for name in ("External", "Rings", "Rows", "Nothing")}
    content = foreign_structure_set(*ct(tmp_path), regions, form)
    short = abridged(content, read_structure_file(content))
    assert len(short) < len(content)
    whole, part = dcmread(BytesIO(content)), dcmread(BytesIO(short))
    for item in whole.ROIContourSequence:
        for contour in item.get("ContourSequence", ()):
            numbers = contour.get_item("ContourData").value
            text = numbers if isinstance(numbers, bytes) else "\\".join(map(str, numbers)).encode()
            contour.ContourData = text.decode().split("\\")[:9]
    for item in part.ROIContourSequence:
        for contour in item.get("ContourSequence", ()):
            value = contour.get_item("ContourData").value
            contour.ContourData = value.decode().split("\\") if isinstance(value, bytes) else list(value)
    assert str(part) == str(whole)


def test_equal_remarks_are_one_finding_with_their_number(tmp_path: Path) -> None:
    def change(dataset: FileDataset) -> None:
        for item in dataset.RTROIObservationsSequence:
            del item.ROIInterpreter

    content = changed(structure_set_of(ct(tmp_path)[1], sample_regions(SHAPE)).content, change)
    ((severity, sentence),) = remarks(content)
    assert severity is Severity.ERROR
    assert sentence.startswith("dciodvfy says: RTROIObservationsSequence/ROIInterpreter: Missing attribute")
    assert sentence.endswith("(7 times)")


def test_what_it_quotes_of_the_patient_is_left_out(tmp_path: Path) -> None:
    long_name = "Phantom^" + "x> - y" * 12
    found = remarks(structure_set_of(ct(tmp_path, patient_name=long_name.encode())[1], sample_regions(SHAPE)).content)
    assert [severity for severity, sentence in found if "PatientName" in sentence]
    assert not [sentence for _, sentence in found if "Phantom" in sentence or "x>" in sentence]


def test_an_error_of_ours_refuses_the_result_and_one_that_was_copied_does_not(tmp_path: Path) -> None:
    wrong = all_slices(PatientSex="X", StudyDate="2026")
    _, series = ct(tmp_path / "wrong", mutate=wrong)
    result = structure_set_of(series, sample_regions(SHAPE), form=KEYHOLE)
    written = read_structure_file(result.content)
    assert {one.severity for one in standard_findings(result.content, written)} == {Severity.ERROR}
    assert standard_errors(result.content, written) == []
    check_structure_set(result.content, series)

    def change(dataset: FileDataset) -> None:
        del dataset.RTROIObservationsSequence[0].ROIInterpreter

    with pytest.raises(ResultRefused, match="dciodvfy says: RTROIObservationsSequence/ROIInterpreter"):
        check_structure_set(changed(result.content, change), series)


def test_where_it_is_not_installed_or_fails_a_note_says_so_and_our_own_rules_decide(tmp_path: Path) -> None:
    content = structure_set_of(ct(tmp_path)[1], sample_regions(SHAPE)).content
    written = read_structure_file(content)
    slow, broken = tmp_path / "slow", tmp_path / "broken"
    slow.write_text("#!/bin/sh\nexec sleep 30\n")
    broken.write_text("#!/bin/sh\nkill -SEGV $$\n")
    for program in (slow, broken):
        program.chmod(0o700)
    absent = Validator(None), Validator(str(tmp_path / "nowhere"))
    for validator in (*absent, Validator(str(slow), time_limit_s=0.05), Validator(str(broken))):
        (finding,) = standard_findings(content, written, validator)
        assert (finding.severity, finding.rule) == (Severity.NOTE, "standard")
        assert standard_errors(content, written, validator) == []


def test_where_nothing_can_be_written_for_it_our_own_rules_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = structure_set_of(ct(tmp_path)[1], sample_regions(SHAPE)).content
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "read only, or gone"))
    assert standard_errors(content, read_structure_file(content)) == []
