import json
from pathlib import Path

import pytest

from appliance.dicom.ct_volume import CtVolume
from appliance.dicom.geometry import SeriesGeometry
from appliance.phantoms import make_phantom
from appliance.segmentation.model_package import ModelPackage, load_package
from appliance.training.config import load_training_config
from appliance.training.evaluate import Judge

REPOSITORY = Path(__file__).parents[3]
FOLDER = REPOSITORY / "models/packages/pelvis-demo"
LARGEST_FOLD_BYTES = 8_000_000


@pytest.fixture(scope="module")
def package() -> ModelPackage:
    return load_package(FOLDER)


def test_the_bundled_folds_are_three_small_and_unaltered(package: ModelPackage) -> None:
    assert [path.name for path in package.fold_paths] == ["fold_0.onnx", "fold_1.onnx", "fold_2.onnx"]
    assert all(path.stat().st_size < LARGEST_FOLD_BYTES for path in package.fold_paths)


def test_the_bundled_card_says_what_the_model_is_not(package: ModelPackage) -> None:
    card = (FOLDER / "CARD.md").read_text(encoding="utf-8").lower()
    assert "not for clinical use" in card
    assert "synthetic" in card
    assert "not for clinical use" in package.manifest.intended_use.lower()


def test_the_bundled_manifest_is_what_its_configuration_publishes_and_the_limits_of_its_calibration() -> None:
    pytest.importorskip("torch")
    from appliance.training.publish import manifest

    config = load_training_config(REPOSITORY / "configs/training/pelvis_demo.toml")
    stored = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))
    assert stored.pop("version") == "1.1.0"
    stored |= {"version": config.version}
    assert stored.pop("max_draft_entropy") > 0
    assert len(stored["limits"].pop("hu_percentiles")) == 5
    assert all(roi.pop("quality") for roi in stored["rois"])
    assert stored == json.loads(json.dumps(manifest(config, stored["folds"])))


def test_the_bundled_model_finds_every_organ_of_a_man_it_has_not_seen() -> None:
    phantom = make_phantom(3, spacing_mm=(4.0, 3.0, 3.0), sex="male")
    volume = CtVolume(phantom.hu, SeriesGeometry.axial(phantom.hu.shape, phantom.spacing_mm, phantom.origin_mm))
    scores = {score.roi: score.dice for score in Judge(FOLDER).score("3", volume, phantom.truth)}
    assert len(scores) == 9
    assert min(scores.values()) > 0.5
    assert min(scores[roi] for roi in ("External", "Femur_L", "Femur_R", "Bone_Pelvic")) > 0.8
