"""`delineate check`: what a physicist is told about a structure set from anywhere."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from pydicom.dataset import FileDataset

from appliance.cli import main
from appliance.dicom.ct_series import CtSeries
from tests.support.ct_files import make_ct_series, only_slice, read_series
from tests.support.foreign_structure_sets import FORMS, Form, foreign_structure_set
from tests.support.structure_sets import sample_regions, structure_set_of

SHAPE = (4, 14, 17)
CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.fixture
def scan(tmp_path: Path) -> tuple[list[Path], CtSeries]:
    paths = make_ct_series(tmp_path / "ct" / "deep" / "down", slices=SHAPE[0], rows=SHAPE[1], columns=SHAPE[2])
    return paths, read_series(paths)


@pytest.fixture
def file(tmp_path: Path, scan: tuple[list[Path], CtSeries]) -> Path:
    regions = {name: sample_regions(SHAPE)[name] for name in ("External", "Rings", "Nothing")}
    return kept(tmp_path, structure_set_of(scan[1], regions).content)


def kept(folder: Path, content: bytes) -> Path:
    path = folder / "set.dcm"
    path.write_bytes(content)
    return path


def check(*arguments: object) -> Result:
    result = CliRunner().invoke(main, ["--config", str(CONFIGS), "check", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_a_good_file_is_told_by_its_structures_and_a_summary(file: Path, tmp_path: Path) -> None:
    result = check(file, "--ct", tmp_path / "ct")
    assert result.exit_code == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.stdout.splitlines() if "│" in line]
    assert rows[0] == ["External", "EXTERNAL", "4", "32", "3.3", "1 to 4", "-812.0 to -803.0"]
    assert rows[2] == ["Nothing", "ORGAN", "0", "0", "0.0", "", ""]
    assert "not in rois.toml: Rings, Nothing" in result.stdout
    assert result.stdout.splitlines()[-1] == (
        "set.dcm: 2 warnings, 2 notes in 3 structures, compared with its CT of 4 slices of 14 x 17."
    )


def test_without_its_ct_a_note_says_what_could_not_be_checked(file: Path) -> None:
    result = check(file)
    assert result.exit_code == 0
    assert "without the CT nobody can say whether it fits the images; name its folder with --ct" in result.stdout
    assert "-812.0 to -803.0" in result.stdout
    assert "3.3" not in result.stdout


def test_an_error_is_said_in_words_and_by_the_exit_status(tmp_path: Path, scan: tuple[list[Path], CtSeries]) -> None:
    def change(dataset: FileDataset) -> None:
        dataset.PatientID = "OTHER"

    file = kept(tmp_path, foreign_structure_set(*scan, sample_regions(SHAPE), Form(change=change)))
    result = check(file, "--ct", tmp_path / "ct")
    assert result.exit_code == 1
    assert "error   the patient's ID is not that of the images; give the images that it was drawn on" in result.stdout
    assert "OTHER" not in result.stdout
    assert "Phantom" not in result.stdout


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_files_of_other_programs_are_checked_without_a_traceback(
    tmp_path: Path, scan: tuple[list[Path], CtSeries], form: Form
) -> None:
    regions = {name: sample_regions(SHAPE)[name] for name in ("External", "Rings", "Rows", "Nothing")}
    file = kept(tmp_path, foreign_structure_set(*scan, regions, form))
    result = check(file, "--ct", tmp_path / "ct")
    assert "External" in result.stdout
    assert "compared with its CT" in result.stdout.splitlines()[-1]


def test_a_folder_without_the_ct_is_said_to_be_so(file: Path, tmp_path: Path) -> None:
    make_ct_series(tmp_path / "other", slices=3, rows=14, columns=17, series="other")
    (tmp_path / "other" / "notes.txt").write_text("no image")
    result = check(file, "--ct", tmp_path / "other")
    assert result.exit_code == 0
    assert "does not hold the CT series that it refers to (images_missing)" in result.stdout


def test_a_ct_that_cannot_be_used_is_said_with_its_reason(file: Path, tmp_path: Path) -> None:
    make_ct_series(tmp_path / "bad", slices=4, rows=14, columns=17, mutate=only_slice(1, PatientID="TEST-0002"))
    result = check(file, "--ct", tmp_path / "bad")
    assert "its CT cannot be used: the series mixes 2 patients" in result.stdout
    assert "(patient_mixed) (images_unusable)" in result.stdout


def test_an_image_that_lies_there_twice_is_taken_once(file: Path, tmp_path: Path) -> None:
    again = tmp_path / "ct" / "copy.dcm"
    again.write_bytes((tmp_path / "ct" / "deep" / "down" / "0001.dcm").read_bytes())
    assert "compared with its CT of 4 slices" in check(file, "--ct", tmp_path / "ct").stdout


def test_an_uneven_ct_is_accepted_here(tmp_path: Path) -> None:
    def thicker(index: int, dataset: FileDataset) -> None:
        if index > 2:
            dataset.ImagePositionPatient = [-185.044, -311.319, -812.0 + 3.0 * index + 1.5 * (index - 2)]

    paths = make_ct_series(tmp_path / "ct", slices=6, rows=14, columns=17, mutate=thicker)
    even = read_series(make_ct_series(tmp_path / "even", slices=6, rows=14, columns=17))
    file = kept(tmp_path, foreign_structure_set(paths, even, sample_regions((6, 14, 17))))
    result = check(file, "--ct", tmp_path / "ct")
    assert "compared with its CT of 6 slices" in result.stdout
    assert "lie off the planes of the images" in result.stdout
    assert result.exit_code == 1


def test_what_is_no_structure_set_is_one_error(tmp_path: Path) -> None:
    for content in (b"", b"no image", bytes(4096)):
        result = check(kept(tmp_path, content))
        assert result.exit_code == 1
        assert "No structures." in result.stdout
        assert "(structure_set_unreadable)" in result.stdout
        assert result.stdout.splitlines()[-1] == "set.dcm: 1 error in 0 structures."


def test_programs_are_told_the_same_as_json(file: Path, tmp_path: Path) -> None:
    result = check(file, "--ct", tmp_path / "ct", "--json")
    report = json.loads(result.stdout)
    assert (report["errors"], report["warnings"], report["notes"]) == (0, 2, 2)
    assert report["structures"][0] == {
        "name": "External",
        "type": "EXTERNAL",
        "contours": 4,
        "points": 32,
        "volume_cm3": pytest.approx(3.34, abs=0.01),
        "z_mm": [-812.0, -803.0],
        "slices": [1, 4],
    }
    assert {finding["severity"] for finding in report["findings"]} == {"warning", "note"}


def test_a_file_can_be_checked_where_nothing_is_installed(file: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--config", str(tmp_path / "none"), "check", str(file)])
    assert result.exit_code == 0
    assert "Names are not compared with rois.toml" in result.stderr
    assert "not in rois.toml" not in result.stdout


def test_what_a_name_holds_does_nothing_to_the_terminal(tmp_path: Path, scan: tuple[list[Path], CtSeries]) -> None:
    def change(dataset: FileDataset) -> None:
        dataset.StructureSetROISequence[0].ROIName = "[red]x\x1b[2J"

    file = kept(tmp_path, foreign_structure_set(*scan, sample_regions(SHAPE), Form(change=change)))
    result = check(file, "--ct", tmp_path / "ct")
    assert "[red]x?[2J: it reaches" in result.stdout
    assert "\x1b[2J" not in result.stdout
    assert "[red]x?[2J" in result.stdout
