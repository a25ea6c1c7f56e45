"""The example of docs/structures.md is a protocol that the shipped configuration and model can serve."""

import re
import shutil
from pathlib import Path

import pytest

from appliance.segmentation.model_package import load_package
from appliance.settings import Settings, load_settings

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "structures.md").read_text()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    protocol, own_rois = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    folder = tmp_path / "configs"
    shutil.copytree(ROOT / "configs", folder)
    (folder / "protocols" / "prostate.toml").write_text(protocol)
    with (folder / "rois.toml").open("a") as rois:
        rois.write(own_rois)
    return load_settings(folder)


def test_the_example_loads_and_is_written_as_the_page_says(settings: Settings) -> None:
    written = settings.written_templates(settings.protocols["prostate"])
    names = [template.name for template in written.values()]
    assert names == ["BODY", "Prostate", "PTVp", "Bladder", "Rectum", "Bowel", "Femurs", "zRing1", "zRectum-PTV"]
    assert written["External"].number == settings.rois["External"].number
    assert settings.planning_system_of(settings.protocols["prostate"]).codes == "FMA"


def test_the_bundled_model_draws_what_the_example_asks_it_for(settings: Settings) -> None:
    asked = settings.protocols["prostate"].asked_of_model
    assert asked == ("Prostate", "Bladder", "Rectum", "Bowel", "Femur_L", "Femur_R")
    manifest = load_package(settings.models_dir / "pelvis-demo").manifest
    assert set(asked) <= {roi.name for roi in manifest.rois}


def test_the_page_tells_the_number_of_shipped_structures() -> None:
    shipped = load_settings(ROOT / "configs")
    assert f"\n{len(shipped.rois)} structures:" in PAGE
    for name in shipped.planning_systems:
        assert name in PAGE
