import json
from pathlib import Path

import numpy as np
import pytest

from appliance.dicom.ct_volume import CtVolume
from appliance.dicom.geometry import SeriesGeometry
from appliance.phantoms import make_phantom
from appliance.phantoms.ct_files import write_ct_series
from appliance.training.evaluate import Judge, Score, summarise
from benchmarks.reference_ct import read_reference_ct
from tests.support.model_packages import make_threshold_package


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    folder = make_threshold_package(
        tmp_path_factory.mktemp("packages") / "bone",
        thresholds_hu={"bone": 500.0},
        rois=[{"name": "Bone_Pelvic", "classes": ["bone"], "keep": "largest"}],
        gain_per_hu=0.05,
        tile=(16, 20, 24),
    )
    assert json.loads((folder / "manifest.json").read_text())["classes"]
    return Judge(folder)


def test_what_is_found_is_compared_and_what_is_missed_scores_nothing(judge: Judge) -> None:
    hu = np.full((24, 30, 30), -1000, np.int16)
    hu[6:18, 8:22, 8:22] = 1000
    volume = CtVolume(hu, SeriesGeometry.axial(hu.shape, (4.0, 4.0, 4.0)))
    bone = hu > 0
    scores = {score.roi: score for score in judge.score("cube", volume, {"Bone_Pelvic": bone, "Bladder": bone})}
    assert scores["Bone_Pelvic"].dice > 0.95
    assert scores["Bone_Pelvic"].found_ml == pytest.approx(scores["Bone_Pelvic"].truth_ml, rel=0.1)
    assert scores["Bladder"].dice == 0
    assert judge.effort.cpu_seconds > 0


def test_a_summary_names_the_mean_and_the_worst_case() -> None:
    scores = [Score(str(k), "Bladder", value, 3.0 + k, 1.0, 1.0) for k, value in enumerate((0.9, 0.5, 0.7))]
    (summary,) = summarise(scores)
    assert (summary.cases, summary.least_dice, summary.median_hausdorff95_mm) == (3, 0.5, 4.0)
    assert summary.mean_dice == pytest.approx(0.7)


def test_a_reference_ct_brings_its_masks_in_roi_names(tmp_path: Path) -> None:
    phantom = make_phantom(5, spacing_mm=(8.0, 6.0, 6.0), shape=(40, 70, 74), sex="male")
    write_ct_series(phantom, tmp_path / "series")
    labels = np.zeros(phantom.hu.shape, np.uint8)
    labels[phantom.truth["Bladder"]] = 21
    labels[:, 60, 30:40] = 20
    np.savez(tmp_path / "labels.npz", labels=labels)
    volume, masks = read_reference_ct(tmp_path / "series", tmp_path / "labels.npz")
    np.testing.assert_array_equal(volume.hu, phantom.hu)
    assert set(masks) == {"Bladder", "Rectum", "Bowel", "External"}
    assert masks["Rectum"][:27].any()
    assert not masks["Rectum"][27:].any()
    assert not (masks["Bowel"] & masks["Rectum"]).any()
    both = masks["External"] & phantom.truth["External"]
    assert both.sum() > 0.95 * phantom.truth["External"].sum()


def test_labels_on_another_grid_are_refused(tmp_path: Path) -> None:
    phantom = make_phantom(5, spacing_mm=(30.0, 10.0, 10.0), shape=(5, 33, 44))
    write_ct_series(phantom, tmp_path / "series")
    np.savez(tmp_path / "labels.npz", labels=np.zeros((4, 33, 44), np.uint8))
    with pytest.raises(ValueError, match="do not fit"):
        read_reference_ct(tmp_path / "series", tmp_path / "labels.npz")
