"""`delineate segment`: a folder of CT in, a checked structure set out, or one sentence that says why not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pydicom import dcmread

from appliance.cli import main
from appliance.dicom.identity import read_identity
from appliance.dicom.structure_file import read_structure_file
from appliance.running.checking import check_file
from appliance.settings import Settings
from tests.support.config_folder import BONES, make_settings, write_config
from tests.support.model_packages import BONE_ROIS, make_threshold_package
from tests.support.patients import make_patient

Run = Callable[..., Result]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A box with one model and a protocol for it; its rois.toml does not know the model's `Spongiosa`."""
    rois = [*BONE_ROIS, {"name": "Spongiosa", "classes": ["bone"]}]
    make_threshold_package(tmp_path / "models" / "thresholds", tile=(16, 32, 32), rois=rois)
    tables = {"appliance": {"models_dir": "../models"}, "worker": {"threads": 1}}
    protocol = {**BONES, "rois": [{"roi": "Bone_Pelvic", "name": "Bone"}, "zShell", "Femur_L"]}
    protocol["derived"] = [{"roi": "zShell", "of": ["Bone_Pelvic"], "ring_mm": [4, 16]}]
    return make_settings(tmp_path, tables, protocols={"bones": protocol})


@pytest.fixture
def run(settings: Settings, tmp_path: Path) -> Run:
    """Runs the command on the folder `ct`, into the folder `out`; the exit status must be as expected."""

    def _run(*words: object, status: int = 0) -> Result:
        own = ["--config", settings.folder, "segment", tmp_path / "ct", "--out", tmp_path / "out"]
        result = CliRunner().invoke(main, [*map(str, own), *map(str, words)])
        assert result.exit_code == status, result.output
        return result

    return _run


def written_names(folder: Path) -> list[str]:
    return [roi.name for roi in read_structure_file((folder / "structure_set.dcm").read_bytes()).rois]


def test_everything_that_a_model_draws_is_written_and_stands_its_examination(
    run: Run, settings: Settings, tmp_path: Path
) -> None:
    make_patient(tmp_path / "ct", "one")
    shown = run("--model", "thresholds").stdout
    names = ["External", "Bone_Pelvic", "Femur_L", "Femur_R", "Spongiosa"]
    assert written_names(tmp_path / "out") == names
    report = check_file(tmp_path / "out" / "structure_set.dcm", tmp_path / "ct", settings.rois)
    assert not report.has_errors, report.findings
    assert all(name in shown for name in names)
    assert (tmp_path / "out" / "contours.png").read_bytes()[:4] == b"\x89PNG"
    assert {path.name for path in settings.data_dir.iterdir()} == {"engines"}, "neither spool nor database"


def test_a_structure_that_rois_toml_does_not_know_gets_a_number_and_a_colour_of_its_own(
    run: Run, settings: Settings, tmp_path: Path
) -> None:
    make_patient(tmp_path / "ct", "one")
    run("--model", "thresholds")
    data_set = dcmread(tmp_path / "out" / "structure_set.dcm")
    numbers = {item.ROIName: int(item.ROINumber) for item in data_set.StructureSetROISequence}
    colours = {int(item.ReferencedROINumber): tuple(item.ROIDisplayColor) for item in data_set.ROIContourSequence}
    assert numbers["Bone_Pelvic"] == settings.rois["Bone_Pelvic"].number
    assert numbers["Spongiosa"] == 1000
    assert colours[1000] not in {one.colour for one in settings.rois.values()}


def test_a_protocol_says_which_structures_are_written_and_under_which_names(run: Run, tmp_path: Path) -> None:
    make_patient(tmp_path / "ct", "one")
    report = json.loads(run("--protocol", "bones", "--seg", "--json").stdout)
    assert written_names(tmp_path / "out") == ["Bone", "zShell", "Femur_L"]
    segmentation = dcmread(tmp_path / "out" / "segmentation.dcm")
    assert [item.SegmentLabel for item in segmentation.SegmentSequence] == ["Bone", "zShell", "Femur_L"]
    assert report == json.loads((tmp_path / "out" / "quality.json").read_text())
    assert report["protocol"] == "bones"
    assert [(one["name"], one["made_from"]) for one in report["structures"]] == [
        ("Bone", []),
        ("zShell", ["Bone"]),
        ("Femur_L", []),
    ]
    assert all(Path(file).is_file() for file in report["files"])


def test_several_models_of_a_protocol_become_one_structure_set(run: Run, settings: Settings, tmp_path: Path) -> None:
    make_patient(tmp_path / "ct", "one")
    second = make_threshold_package(tmp_path / "models" / "second", tile=(16, 32, 32), fold_shifts_hu=(0.0,))
    manifest = json.loads((second / "manifest.json").read_text())
    (second / "manifest.json").write_text(json.dumps({**manifest, "name": "second", "version": "2.0.0"}))
    rois = [{"roi": "Bone_Pelvic", "model": "thresholds"}, {"roi": "Femur_L", "model": "second"}]
    write_config(
        settings.folder,
        {"appliance": {"models_dir": "../models"}},
        protocols={"both": {**BONES, "name": "both", "model": ["thresholds", "second"], "rois": rois}},
    )
    report = json.loads(run("--protocol", "both", "--json").stdout)
    assert [(one["name"], one["version"]) for one in report["models"]] == [("thresholds", "1.0.0"), ("second", "2.0.0")]
    assert written_names(tmp_path / "out") == ["Bone_Pelvic", "Femur_L"]
    alone = json.loads(run("--protocol", "both", "--model", "second", "--json").stdout)
    assert [one["name"] for one in alone["models"]] == ["second"]
    said = run("--protocol", "both", "--version", "1.0.0", status=1).output
    assert "say with --model which --version is meant" in said


def test_a_result_of_all_the_same_things_is_taken_again_with_the_date_when_it_was_made(
    run: Run, tmp_path: Path
) -> None:
    make_patient(tmp_path / "ct", "one")
    run("--model", "thresholds")
    file = tmp_path / "out" / "structure_set.dcm"
    earlier = dcmread(file)
    earlier.StructureSetDate = "20200202"
    earlier.save_as(file)
    before = file.read_bytes()
    run("--model", "thresholds")
    assert file.read_bytes() == before


def test_what_is_no_slice_of_the_series_is_skipped_and_named(run: Run, tmp_path: Path) -> None:
    paths = make_patient(tmp_path / "ct", "one")
    (tmp_path / "ct" / "notes.txt").write_text("no DICOM")
    (tmp_path / "ct" / "copy.dcm").write_bytes(paths[0].read_bytes())
    run("--model", "thresholds")
    (tmp_path / "ct" / "earlier.dcm").write_bytes((tmp_path / "out" / "structure_set.dcm").read_bytes())
    said = run("--model", "thresholds").stdout
    assert "3 files skipped" in said
    assert f"copy.dcm (is a copy of {paths[0].name})" in said or f"{paths[0].name} (is a copy of copy.dcm)" in said
    assert "earlier.dcm (is no CT image (RTSTRUCT))" in said
    assert "notes.txt (" in said


def test_two_series_in_one_folder_are_told_apart_by_name(run: Run, tmp_path: Path) -> None:
    (first, *_), (second, *_) = (make_patient(tmp_path / "ct" / name, name) for name in ("one", "two"))
    uids = [read_identity(path).series_instance_uid for path in (first, second)]
    said = run("--model", "thresholds", status=1).output
    assert "holds 2 CT series" in said
    assert all(f"{uid} (12 slices)" in said for uid in uids)
    run("--model", "thresholds", "--series", uids[1])
    assert uids[1] in read_structure_file((tmp_path / "out" / "structure_set.dcm").read_bytes()).series_uids
    assert "does not hold series 1.2.3" in run("--model", "thresholds", "--series", "1.2.3", status=1).output


def _cut(paths: list[Path]) -> None:
    paths[4].write_bytes(paths[4].read_bytes()[:-200])


def _lose(paths: list[Path]) -> None:
    paths[4].unlink()


def _all(paths: list[Path]) -> None:
    for path in paths:
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_cut, ("pixels_truncated", "{name}: the file holds")),
        (_lose, ("slice_missing",)),
        (_all, ("holds no CT image among 0 files",)),
    ],
)
def test_a_series_is_refused_as_the_line_refuses_it(
    run: Run, tmp_path: Path, damage: Callable[[list[Path]], None], words: tuple[str, ...]
) -> None:
    paths = make_patient(tmp_path / "ct", "one")
    damage(paths)
    said = run("--model", "thresholds", status=1).output
    assert all(each.format(name=paths[4].name) in said for each in words), said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "name a model with --model, or a protocol with --protocol"),
        (("--model", "ghost"), "there is no model package ghost"),
        (("--model", "thresholds", "--version", "9.9.9"), "there is no version 9.9.9 of model thresholds"),
        (("--protocol", "ghost"), "there is no protocol ghost"),
    ],
)
def test_what_cannot_be_done_is_answered_in_one_sentence(
    run: Run, tmp_path: Path, words: tuple[Any, ...], sentence: str
) -> None:
    make_patient(tmp_path / "ct", "one")
    assert sentence in run(*words, status=1).output
