"""`delineate models calibrate`: from a hospital's own cases to a version of its model with limits of its own."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from appliance.cli import main
from appliance.segmentation.model_package import load_package
from appliance.settings import load_settings
from appliance.spool.model_store import ModelStore
from tests.support.config_folder import write_config
from tests.support.ct_files import make_ct_series, read_series
from tests.support.foreign_structure_sets import foreign_structure_set
from tests.support.model_packages import make_threshold_package


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    make_threshold_package(tmp_path / "packages" / "thresholds", tile=(8, 16, 16))
    where = {"appliance": {"data_dir": "../data", "models_dir": "../packages"}}
    return write_config(tmp_path / "configs", where)


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    """Three patients with a block of bone each, and what a person drew of it."""
    for number in range(3):
        folder = tmp_path / "cases" / f"Doe^Jane {number}"
        hu = np.full((8, 40, 48), 40, np.int16)
        bone = np.zeros(hu.shape, np.bool_)
        bone[2:6, 10:30, 10 : 30 + 2 * number] = True
        hu[bone] = 700
        paths = make_ct_series(folder, slices=8, rows=40, columns=48, hu=hu, series=f"1.2.3.{number}")
        content = foreign_structure_set(paths, read_series(paths), {"Bone_Pelvic": bone})
        (folder / "drawn.dcm").write_bytes(content)
    return tmp_path / "cases"


def test_a_hospital_calibrates_its_model_on_its_own_cases(configs: Path, cases: Path) -> None:
    asked = ["--config", str(configs), "models", "calibrate", "thresholds", "--cases", str(cases)]
    told = CliRunner().invoke(main, asked, catch_exceptions=False)
    assert told.exit_code == 0, told.output
    assert "15 of 15: case 3" in told.output
    assert "thresholds 1.1.0 is there" in told.output
    assert "Jane" not in told.output
    store = ModelStore.of(load_settings(configs))
    old, new = store.versions("thresholds")
    assert (old.version, old.is_active, new.version, new.is_active) == ("1.0.0", True, "1.1.0", False)
    before, after = load_package(old.folder).manifest, load_package(new.folder).manifest
    assert after.folds == before.folds
    flagged_from = {roi.name: roi.quality.max_doubt for roi in after.rois}
    assert flagged_from["Bone_Pelvic"] is not None
    assert flagged_from["Femur_L"] is None, "nobody drew it, so nothing is known of it"
