"""`delineate models`: what an operator is told about models, and what changes when one is exchanged."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from appliance.audit.trail import trail_of_box
from appliance.cli import main
from appliance.intake.assembler import Assembler
from appliance.records import Database
from appliance.records.tables import CaseState
from appliance.settings import Settings
from appliance.spool import Spool
from appliance.spool.model_store import ModelStore
from tests.support.config_folder import BONES, make_settings
from tests.support.model_packages import BONE_ROIS, make_threshold_package
from tests.support.reading import READING
from tests.support.rows import new_case

Say = Callable[..., str]
CHANGES = """
classes = ["background", "body", "bone"]
intended_use = "Trying out."
[input]
spacing_mm = [4.0, 4.0, 4.0]
tile = [4, 16, 16]
channels = [{ offset_hu = 0.0, scale_hu = 1000.0, clip = [-1.0, 2.0] }]
"""
NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A box whose only protocol names the bundled model `thresholds`; it was never started."""
    make_threshold_package(tmp_path / "models" / "thresholds", tile=(4, 16, 16))
    tables = {"appliance": {"models_dir": "../models"}, "worker": {"threads": 1}}
    return make_settings(tmp_path, tables, protocols={"bones": BONES})


@pytest.fixture
def say(settings: Settings) -> Say:
    """Runs a command and returns what it says; the exit status must be as expected."""

    def _say(*words: object, status: int = 0, keys: str = "") -> str:
        arguments = ["--config", str(settings.folder), "models", *map(str, words)]
        result = CliRunner().invoke(main, arguments, input=keys)
        assert result.exit_code == status, result.output
        return result.output

    return _say


def package(folder: Path, version: str, **changes: Any) -> Path:
    """A package of the model `thresholds`, as another box would hand it over."""
    make_threshold_package(folder, tile=(4, 16, 16), rois=changes.pop("rois", BONE_ROIS))
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "version": version, **changes}))
    return folder


def told(settings: Settings) -> list[str]:
    """The events of the box, once it has been started."""
    database = Database(settings.database_url)
    database.migrate()
    Assembler(settings, database, Spool(settings.data_dir / "spool"), READING).sweep(NOON)
    with database.reading() as tx:
        return [entry.words for entry in trail_of_box(tx, 100)]


def test_a_package_is_imported_activated_undone_removed_and_brought_back_and_the_trail_knows_it_all(
    say: Say, settings: Settings, tmp_path: Path
) -> None:
    said = say("import", package(tmp_path / "from-elsewhere", "2.0.0"))
    assert "thresholds 2.0.0 is imported, and not active yet" in said
    assert "delineate models activate thresholds 2.0.0" in said
    said = say("activate", "thresholds", "2.0.0", "--yes")
    assert "digests verified" in said
    assert "takes the place of 1.0.0" in said
    assert ModelStore.of(settings).find("thresholds").version == "2.0.0"
    say("activate", "thresholds", "1.0.0", "--yes")
    assert "models restore thresholds 2.0.0" in say("remove", "thresholds", "2.0.0")
    assert "2.0.0" in say("list", "--removed")
    say("restore", "thresholds", "2.0.0")
    assert not (settings.data_dir / "delineate.sqlite").exists(), "none of it needs a database"
    assert ModelStore.of(settings).find("thresholds").version == "1.0.0"
    words = told(settings)
    assert [line.partition(", digest")[0] for line in words] == [
        "model thresholds 2.0.0 imported from from-elsewhere",
        "model thresholds: version 2.0.0 is active now, before it 1.0.0",
        "model thresholds: version 1.0.0 is active now, before it 2.0.0",
        "model thresholds 2.0.0 removed",
        "model thresholds 2.0.0 restored",
    ]


@pytest.mark.skipif(find_spec("onnxscript") is None, reason="converting needs the extra `import`")
def test_a_model_of_another_program_is_converted_step_by_step_and_can_then_be_activated(
    say: Say, settings: Settings, tmp_path: Path
) -> None:
    foreign = package(tmp_path / "foreign", "1.0.0") / "fold_1.onnx"
    changes = tmp_path / "changes.toml"
    changes.write_text(CHANGES)
    said = say("import", foreign, "--name", "head", "--version", "1.2.0", "--licence", "MIT", "--settings", changes)
    assert "converting network 1 of 1" in said
    assert "head 1.2.0 is imported, and not active yet" in said
    shown = say("show", "head", "1.2.0")
    assert "Imported from fold_1.onnx (ONNX)" in shown
    assert "Intended use: Trying out." in shown
    say("activate", "head", "1.2.0", "--yes")
    assert ModelStore.of(settings).find("head").version == "1.2.0"
    again = say("import", foreign, "--name", "head", "--version", "1.2.0", "--settings", changes, status=1)
    assert "there is a version 1.2.0 of model head already" in again
    assert "converting" not in again, "what cannot be kept is not converted"


def test_a_file_of_settings_that_is_no_toml_is_named(say: Say, tmp_path: Path) -> None:
    (tmp_path / "changes.toml").write_text("classes = [")
    said = say("import", tmp_path, "--settings", tmp_path / "changes.toml", status=1)
    assert "changes.toml:" in said
    assert "correct the file" in said


def test_the_list_tells_every_version_which_one_works_and_for_whom(say: Say, tmp_path: Path) -> None:
    say("import", package(tmp_path / "new", "2.0.0", source="a bundle of another program"))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in say("list").splitlines() if "│" in line]
    assert rows == [
        ["thresholds", "1.0.0", "active", "4", "3", "1 MB", "", "this release", "bones"],
        ["thresholds", "2.0.0", "imported", "4", "3", "1 MB", "", "a bundle of another program", ""],
    ]


def test_a_model_is_shown_with_everything_that_changes_its_masks(say: Say) -> None:
    said = say("show", "thresholds")
    for words in (
        "Works on 4 x 4 x 4 mm (z, y, x), tiles of 4 x 16 x 16 voxels that overlap by 50 %",
        "Channel 1: (HU - 0) / 1000, from -1000 to 2000 HU.",
        "Ensemble: 3 networks (folds), the mean of their softmax",
        "slices 0.5 to 6 mm apart; at least 10 x 10 x 10 mm (z, y, x)",
        "Licence: Apache-2.0.",
        "the largest part; holes in slices filled",
        "fold_2.onnx",
        "For tests only.",
    ):
        assert words in said


def test_activating_tells_what_protocols_lose_and_asks_first(say: Say, settings: Settings, tmp_path: Path) -> None:
    hip = {**BONE_ROIS[1], "name": "Hip"}
    say("import", package(tmp_path / "new", "2.0.0", rois=[BONE_ROIS[0], hip]))
    said = say("activate", "thresholds", "2.0.0", keys="n\n", status=1)
    assert "Structures gained: Hip; lost: Bone_Pelvic, Femur_L, Femur_R." in said
    assert "Protocol bones asks for Bone_Pelvic: its cases will be refused" in said
    assert ModelStore.of(settings).find("thresholds").version == "1.0.0"
    say("activate", "thresholds", "2.0.0", keys="y\n")
    assert ModelStore.of(settings).find("thresholds").version == "2.0.0"


def _flip(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def _answers_the_same_everywhere(folder: Path) -> None:
    make_threshold_package(folder, tile=(4, 16, 16), gain_per_hu=0.0)
    _as_version_2(folder)


def _answers_with_no_numbers(folder: Path) -> None:
    make_threshold_package(folder, tile=(4, 16, 16), gain_per_hu=float("nan"))
    _as_version_2(folder)


def _as_version_2(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "version": "2.0.0"}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: _flip(folder / "fold_1.onnx"), "fold_1.onnx of model package thresholds 2.0.0 has sha256"),
        (lambda folder: (folder / "fold_2.onnx").unlink(), "fold_2.onnx of model package thresholds 2.0.0 is missing"),
        (lambda folder: (folder / "manifest.json").unlink(), "no model package in"),
        (_answers_the_same_everywhere, "fold_0.onnx of model thresholds 2.0.0 gives the same answer for air, bone"),
        (_answers_with_no_numbers, "fold_0.onnx of model thresholds 2.0.0 answers with values that are not numbers"),
        (lambda folder: package(folder, "3.0.0"), "holds model thresholds 3.0.0, not the one that it is named for"),
    ],
)
def test_a_model_with_a_fault_is_never_activated_and_the_fault_is_named(
    say: Say, settings: Settings, tmp_path: Path, damage: Callable[[Path], object], words: str
) -> None:
    say("import", package(tmp_path / "new", "2.0.0"))
    damage(settings.data_dir / "models" / "thresholds" / "2.0.0")
    for command in (("verify", "thresholds", "2.0.0"), ("activate", "thresholds", "2.0.0", "--yes")):
        assert words in say(*command, status=1)
    assert ModelStore.of(settings).find("thresholds").version == "1.0.0"


def test_a_good_model_is_told_by_its_engine_and_its_pace(say: Say) -> None:
    said = say("verify", "thresholds")
    assert "3 folds asked about a tile of 4 x 16 x 16, " in said
    assert "run by ONNX Runtime" in said


def test_an_active_model_that_a_protocol_names_is_not_removed(say: Say, tmp_path: Path) -> None:
    say("import", package(tmp_path / "new", "2.0.0"))
    say("activate", "thresholds", "2.0.0", "--yes")
    assert "protocol bones needs thresholds 2.0.0, which is active" in say("remove", "thresholds", "2.0.0", status=1)
    assert "came with this release" in say("remove", "thresholds", "1.0.0", status=1)


def test_no_version_of_a_model_is_removed_while_cases_wait_for_it(say: Say, settings: Settings, tmp_path: Path) -> None:
    say("import", package(tmp_path / "new", "2.0.0"))
    database = Database(settings.database_url)
    database.migrate()
    case_id = new_case(database, CaseState.QUEUED, protocol="bones", model="thresholds")
    assert f"case {case_id} waits for model thresholds" in say("remove", "thresholds", "2.0.0", status=1)
    assert ModelStore.of(settings).find("thresholds", "2.0.0").folder.is_dir()


def test_a_package_of_our_own_is_taken_as_it_is_or_not_at_all(say: Say, settings: Settings, tmp_path: Path) -> None:
    new = package(tmp_path / "new", "2.0.0")
    assert "is a package of thresholds 2.0.0 already; import it as it is" in say("import", new, "--name", "x", status=1)
    assert "there is a version 1.0.0 of model thresholds already" in say(
        "import", package(tmp_path / "same", "1.0.0"), status=1
    )
    _flip(new / "fold_0.onnx")
    assert "model_altered" in say("import", new, status=1)
    assert [model.version for model in ModelStore.of(settings).models()] == ["1.0.0"]
    assert told(settings) == []


def test_what_is_named_and_not_there_is_answered_with_what_is(say: Say) -> None:
    assert "there is no model package ghost; `delineate models list`" in say("show", "ghost", status=1)
    assert "there is no version 9.9.9 of model thresholds (there: 1.0.0)" in say(
        "activate", "thresholds", "9.9.9", status=1
    )
    assert "no version 1.0.0 of model ghost was removed" in say("restore", "ghost", "1.0.0", status=1)
    assert "is active already" in say("activate", "thresholds", "1.0.0")
