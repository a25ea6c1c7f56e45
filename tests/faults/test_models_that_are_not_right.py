"""F25 and F26: a model that is not what it should be is refused by name, and an absurd answer never leaves the box."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.records import Database
from appliance.records.tables import Case, CaseState, Delivery
from appliance.spool import Spool
from tests.support.config_folder import BONES, make_settings
from tests.support.model_packages import make_threshold_package
from tests.support.patients import make_patient
from tests.support.proof import Tally
from tests.support.worker_site import Site, queue_up

Change = Callable[[Path], object]


@pytest.fixture
def site(tmp_path: Path, database: Database, spool: Spool) -> Site:
    """A worker with a good model, and a case that waits."""
    make_threshold_package(tmp_path / "models" / "thresholds", tile=(16, 32, 32))
    tables = {"appliance": {"models_dir": "../models"}, "worker": {"threads": 1, "engines": ["onnxruntime"]}}
    settings = make_settings(tmp_path, tables, protocols={"bones": BONES})
    return queue_up(settings, database, spool, make_patient(tmp_path / "ct", "one", slices=6))


def _truncate(folder: Path) -> None:
    fold = folder / "fold_1.onnx"
    fold.write_bytes(fold.read_bytes()[:100])


def _flip(folder: Path) -> None:
    fold = folder / "fold_1.onnx"
    content = bytearray(fold.read_bytes())
    content[len(content) // 2] ^= 1
    fold.write_bytes(content)


def _swap(folder: Path) -> None:
    folds = [folder / "fold_0.onnx", folder / "fold_2.onnx"]
    contents = [fold.read_bytes() for fold in folds]
    for fold, content in zip(folds, reversed(contents), strict=True):
        fold.write_bytes(content)


def _corrupt(folder: Path) -> None:
    """What the manifest vouches for is no network."""
    (folder / "fold_1.onnx").write_bytes(b"no network at all")
    _vouch(folder)


def _of_another_shape(folder: Path) -> None:
    other = make_threshold_package(folder.parent / "other", thresholds_hu={"bone": 250.0}, rois=(), tile=(16, 32, 32))
    shutil.copy(other / "fold_1.onnx", folder / "fold_1.onnx")
    shutil.rmtree(other)
    _vouch(folder)


def _without_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")


def _vouch(folder: Path) -> None:
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    for fold in manifest["folds"]:
        fold["sha256"] = hashlib.sha256((folder / fold["file"]).read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.fault("F25", "never silent")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (shutil.rmtree, "model_missing"),
        (_truncate, "model_altered"),
        (_flip, "model_altered"),
        (_swap, "model_altered"),
        (_corrupt, "model_invalid"),
        (_of_another_shape, "model_invalid"),
        (_without_manifest, "model_invalid"),
    ],
    ids=["missing", "truncated", "flipped", "swapped", "no network", "another shape", "no manifest"],
)
def test_a_case_of_a_model_that_is_not_right_is_refused_by_its_name(
    site: Site, tally: Tally, change: Change, reason: str
) -> None:
    change(site.bench.settings.models_dir / "thresholds")
    site.bench.warm_up()
    site.attend()
    tally.count(held=(site.case.state, site.case.reason) == (CaseState.REFUSED, reason))
    tally.count(held="thresholds" in (site.case.sentence or "") or "fold_" in (site.case.sentence or ""))
    tally.count(held=site.deliveries == [])


ABSURD: dict[str, dict[str, Any]] = {
    "no numbers": {"gain_per_hu": float("nan")},
    "nothing": {"thresholds_hu": {"body": 90_000.0, "bone": 95_000.0}},
    "everything": {"thresholds_hu": {"body": -95_000.0, "bone": -90_000.0}},
}


@pytest.mark.fault("F26", "never wrong")
@pytest.mark.parametrize("absurd", ABSURD.values(), ids=ABSURD)
def test_an_absurd_answer_never_leaves(
    tmp_path: Path, database: Database, spool: Spool, tally: Tally, absurd: dict[str, Any]
) -> None:
    make_threshold_package(tmp_path / "models" / "thresholds", tile=(16, 32, 32), **absurd)
    tables = {"appliance": {"models_dir": "../models"}, "worker": {"threads": 1, "engines": ["onnxruntime"]}}
    settings = make_settings(tmp_path, tables, protocols={"bones": BONES})
    site = queue_up(settings, database, spool, make_patient(tmp_path / "ct", "one", slices=6))
    site.attend()
    case: Case = site.case
    with database.reading() as tx:
        tally.count(held=tx.query(Delivery).count() == 0)
    tally.count(held=case.state is CaseState.REFUSED and bool(case.reason))
