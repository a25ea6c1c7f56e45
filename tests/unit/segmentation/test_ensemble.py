import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appliance.dicom.ct_volume import CtVolume
from appliance.dicom.scan_description import ScanDescription
from appliance.errors import ModelRefused, Reason, SeriesRefused
from appliance.segmentation.ensemble import Ensemble
from appliance.segmentation.model_package import load_package
from appliance.segmentation.opening import open_ensemble
from appliance.segmentation.segment import segment
from tests.support.ct_volumes import scan, series_grid
from tests.support.model_packages import make_threshold_package, threshold_logits

TILE = (8, 12, 12)
SHIFTS_HU = (-40.0, 0.0, 90.0)


def cylinder(x_mm: Any, y_mm: Any, z_mm: Any) -> Any:
    return np.where(np.hypot(x_mm, y_mm) < 40, 40 + 4 * z_mm + 3 * x_mm, -1000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages") / "thresholds"
    return make_threshold_package(folder, tile=TILE, fold_shifts_hu=SHIFTS_HU, gain_per_hu=0.01)


@pytest.fixture(scope="module")
def ensemble(folder: Path) -> Ensemble:
    return open_ensemble(load_package(folder), threads=1)


@pytest.fixture(scope="module")
def volume() -> CtVolume:
    return scan(cylinder, series_grid("HFS", (18, 40, 40), (4.0, 4.0, 4.0)))  # on the working grid itself


def not_watched(_fold: int, _done: int, _total: int) -> None:
    pass


def test_the_answer_is_the_mean_of_the_folds_softmax(ensemble: Ensemble, volume: CtVolume) -> None:
    probabilities = ensemble.predict(volume, not_watched)
    ct = volume.hu[
        tuple(
            slice(*np.searchsorted(ct_mm, (mm[0] - 1, mm[-1] + 1)))
            for ct_mm, mm in zip(probabilities.grid.ct_centres_mm, probabilities.grid.centres_mm, strict=True)
        )
    ]
    expected = np.zeros((3, *ct.shape))
    for shift_hu in SHIFTS_HU:
        odds = np.exp(threshold_logits(np.clip(ct, -1000, 2000), [-300 + shift_hu, 250 + shift_hu], 0.01))
        expected += odds / odds.sum(axis=0) / len(SHIFTS_HU)
    assert probabilities.mean_softmax.dtype == np.float32
    assert probabilities.mean_softmax.shape == expected.shape
    body = ct > -1000  # tiles of air alone are not asked
    assert np.allclose(probabilities.mean_softmax[:, body], expected[:, body], atol=1e-5)
    assert np.allclose(probabilities.mean_softmax.sum(axis=0), 1.0, atol=1e-5)


def test_each_network_run_is_reported_fold_by_fold(ensemble: Ensemble, volume: CtVolume) -> None:
    calls: list[tuple[int, int, int]] = []
    ensemble.predict(volume, lambda *call: calls.append(call))
    assert [fold for fold, _, _ in calls] == [0, 1, 2] * (len(calls) // 3)
    assert [done for _, done, _ in calls] == list(range(1, len(calls) + 1))
    assert {total for _, _, total in calls} == {len(calls)}


class StopAskedError(Exception):
    pass


def test_raising_from_the_report_stops_at_once_and_leaves_the_ensemble_usable(
    ensemble: Ensemble, volume: CtVolume
) -> None:
    runs = []

    def stop_after_four(_fold: int, done: int, _total: int) -> None:
        runs.append(done)
        if done == 4:
            raise StopAskedError

    before = ensemble.predict(volume, not_watched).mean_softmax
    with pytest.raises(StopAskedError):
        ensemble.predict(volume, stop_after_four)
    assert runs == [1, 2, 3, 4]
    assert np.array_equal(ensemble.predict(volume, not_watched).mean_softmax, before)


def test_tiles_of_air_are_background_without_asking_a_network(ensemble: Ensemble) -> None:
    two_legs = scan(
        lambda x, y, _z: np.where(np.hypot(np.abs(x) - 100, y) < 20, 40, -1000),
        series_grid("HFS", (8, 20, 80), (4.0, 4.0, 4.0)),
    )
    calls: list[int] = []
    probabilities = ensemble.predict(two_legs, lambda _fold, done, _total: calls.append(done))
    middle = probabilities.mean_softmax[..., probabilities.mean_softmax.shape[-1] // 2]
    assert (middle[0] == 1.0).all()
    assert np.allclose(probabilities.mean_softmax.sum(axis=0), 1.0, atol=1e-5)
    assert 0 < len(calls) < 3 * 20


def test_a_scan_of_air_alone_is_background_alone(ensemble: Ensemble) -> None:
    air = scan(lambda *at: np.full_like(at[0], -1000), series_grid("HFS", (10, 20, 20), (4.0, 4.0, 4.0)))
    probabilities = ensemble.predict(air, pytest.fail)
    assert np.allclose(probabilities.mean_softmax[0], 1.0, atol=1e-6)


def test_a_scan_outside_the_models_limits_is_refused_before_any_run(ensemble: Ensemble) -> None:
    thick = scan(cylinder, series_grid("HFS", (6, 40, 40), (9.0, 4.0, 4.0)))
    with pytest.raises(SeriesRefused) as caught:
        segment(ensemble, thick, ScanDescription(), pytest.fail)
    assert caught.value.reason is Reason.INPUT_OUTSIDE_MODEL_LIMITS


def change_manifest(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_network_of_another_shape_than_the_manifest_says_is_refused(tmp_path: Path) -> None:
    folder = make_threshold_package(tmp_path, tile=TILE)
    change_manifest(folder, classes=["background", "body", "bone", "gas"])
    with pytest.raises(ModelRefused) as caught:
        open_ensemble(load_package(folder), threads=1)
    assert caught.value.reason is Reason.MODEL_INVALID
    assert "(1, 4, 8, 12, 12)" in caught.value.sentence


def test_a_network_that_answers_with_no_numbers_is_refused(tmp_path: Path, volume: CtVolume) -> None:
    folder = make_threshold_package(tmp_path, tile=TILE, fold_shifts_hu=(0.0, float("nan")))
    ensemble = open_ensemble(load_package(folder), threads=1)
    with pytest.raises(ModelRefused) as caught:
        ensemble.predict(volume, not_watched)
    assert caught.value.reason is Reason.MODEL_INVALID
    assert "fold_1.onnx" in caught.value.sentence


def test_the_engine_runs_without_torch() -> None:
    script = (
        "import appliance.segmentation.ensemble, appliance.segmentation.postprocess, sys; print('torch' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
