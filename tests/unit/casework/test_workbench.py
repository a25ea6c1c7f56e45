"""The worker's models: the active version of each, warm, and no other."""

import json
from pathlib import Path

import pytest

from appliance.casework.workbench import Workbench
from appliance.errors import ModelRefused
from appliance.records import Database
from appliance.spool import Spool
from appliance.spool.model_store import ModelStore
from tests.support.config_folder import make_settings
from tests.support.model_packages import make_threshold_package


@pytest.fixture
def bench(tmp_path: Path, database: Database, spool: Spool) -> Workbench:
    make_threshold_package(tmp_path / "models" / "thresholds", tile=(4, 8, 8))
    settings = make_settings(tmp_path, {"appliance": {"models_dir": "../models"}, "worker": {"threads": 1}})
    store = ModelStore.of(settings)
    with store.incoming() as folder:
        make_threshold_package(folder, tile=(4, 8, 8))
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps({**manifest, "version": "2.0.0"}))
        store.take_in(folder)
    return Workbench(settings, database, spool, worker="worker-1")


def _works(bench: Workbench) -> str:
    return bench.model("thresholds").package.manifest.version


def test_another_version_works_from_the_next_case_on_without_a_restart_and_so_does_the_undo(bench: Workbench) -> None:
    store = ModelStore.of(bench.settings)
    assert _works(bench) == "1.0.0"
    store.activate("thresholds", "2.0.0")
    assert _works(bench) == "2.0.0"
    store.activate("thresholds", "1.0.0")
    assert _works(bench) == "1.0.0"


def test_a_model_stays_warm_as_long_as_its_version_is_active(bench: Workbench) -> None:
    warm = bench.model("thresholds")
    assert bench.model("thresholds") is warm


def test_a_manifest_that_changed_on_the_disk_is_read_again(bench: Workbench) -> None:
    warm = bench.model("thresholds")
    path = bench.settings.models_dir / "thresholds" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "title": "Changed"}))
    changed = bench.model("thresholds")
    assert changed is not warm
    assert changed.package.digest != warm.package.digest


def test_a_package_that_is_gone_is_refused_even_if_it_was_warm(bench: Workbench) -> None:
    ModelStore.of(bench.settings).activate("thresholds", "2.0.0")
    bench.model("thresholds")
    (bench.settings.data_dir / "models" / "thresholds" / "2.0.0" / "manifest.json").unlink()
    with pytest.raises(ModelRefused):
        bench.model("thresholds")
