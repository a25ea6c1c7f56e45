import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appliance.dicom.ct_volume import CtVolume
from appliance.dicom.scan_description import ScanDescription
from appliance.errors import ModelRefused, Reason, SeriesRefused
from appliance.segmentation.agreement import dice
from appliance.segmentation.arrays import Arrays, host_arrays
from appliance.segmentation.ensemble import Ensemble, Labelled
from appliance.segmentation.model_package import load_package
from appliance.segmentation.opening import open_ensemble
from appliance.segmentation.segment import segment
from tests.support.array_libraries import ARRAY_LIBRARIES
from tests.support.ct_volumes import PATIENT_POSITIONS, scan, series_grid
from tests.support.model_packages import make_threshold_package, manifest_of_classes, threshold_logits
from tests.support.networks import ensemble_of, thresholds

TILE = (8, 12, 12)
SHIFTS_HU = (-40.0, 0.0, 90.0)
INPUT = manifest_of_classes(3).input.model_dump(mode="json") | {"tile": TILE, "crop": "whole"}


def cylinder(x_mm: Any, y_mm: Any, z_mm: Any) -> Any:
    return np.where(np.hypot(x_mm, y_mm) < 40, 40 + 4 * z_mm + 3 * x_mm, -1000)


@pytest.fixture(scope="module")
def volume() -> CtVolume:
    return scan(cylinder, series_grid("HFS", (18, 40, 40), (4.0, 4.0, 4.0)))  # on the working grid itself


def not_watched(_fold: int, _done: int, _total: int) -> None:
    pass


def three_folds(arrays: Arrays | None = None, **how: Any) -> Ensemble:
    functions = [thresholds(shift_hu, arrays or host_arrays()) for shift_hu in SHIFTS_HU]
    return ensemble_of(functions, arrays, **({"input": INPUT} | how))


def fold_logits(volume: CtVolume) -> list[Any]:
    hu = np.clip(volume.hu, -1000, 2000)
    return [threshold_logits(hu, [-300 + shift_hu, 250 + shift_hu], 0.01) for shift_hu in SHIFTS_HU]


def softmax(logits: Any) -> Any:
    odds = np.exp(logits - logits.max(axis=0))
    return odds / odds.sum(axis=0)


def answers(way: str, volume: CtVolume) -> Any:
    """What the ensemble is to be the argmax of, and by how much the first leads the second."""
    folds = fold_logits(volume)
    if way == "majority":
        return np.mean([np.stack([one.argmax(0) == number for number in range(3)]) for one in folds], axis=0)
    return np.mean([softmax(one) if way == "mean_softmax" else one for one in folds], axis=0)


@pytest.mark.parametrize("way", ["mean_softmax", "mean_logits", "majority"])
@pytest.mark.parametrize("arrays", ARRAY_LIBRARIES)
def test_the_answer_is_the_argmax_of_what_the_manifest_averages(
    way: str, arrays: Callable[[], Arrays], volume: CtVolume
) -> None:
    labels = three_folds(arrays(), ensemble=way).label(volume, not_watched).labels
    expected = answers(way, volume)
    first, second = np.sort(expected, axis=0)[:-3:-1]
    clear = first - second > 1e-4
    assert np.count_nonzero(~clear) < 0.002 * clear.size
    assert np.array_equal(labels.voxels[clear], expected.argmax(axis=0)[clear])
    if way == "mean_softmax":
        # A second that can win nowhere near is not asked for.
        contested = (volume.hu > -1000) & (second >= 1 / 3)
        assert np.count_nonzero(contested) > 100
        assert np.abs(labels.certainty - (first - second) * 255)[contested].max() <= 1.01


def labels_of(ensemble: Ensemble, volume: CtVolume) -> Any:
    return ensemble.label(volume, not_watched).labels.voxels


def test_a_batch_of_tiles_gives_the_masks_of_one_tile_after_another(volume: CtVolume) -> None:
    one, many = three_folds(), three_folds(batch=3)
    assert np.array_equal(labels_of(one, volume), labels_of(many, volume))
    assert max(many.networks[0].batches) == 3  # type: ignore[attr-defined]
    assert sum(many.networks[2].batches) == sum(one.networks[2].batches)  # type: ignore[attr-defined]


def test_accumulators_of_half_precision_change_next_to_nothing(volume: CtVolume) -> None:
    for way in ("mean_softmax", "mean_logits"):
        single, half = (
            labels_of(three_folds(ensemble=way, accumulate=kind), volume) for kind in ("float32", "float16")
        )
        assert np.count_nonzero(single != half) < 0.002 * single.size


@pytest.mark.parametrize("position", PATIENT_POSITIONS)
def test_the_same_patient_gets_the_same_masks_however_the_series_is_stored(position: str) -> None:
    def leaning(tiles: Any) -> Any:  # a network that knows left from right, front from back, up from down
        place = np.mgrid[: TILE[0], : TILE[1], : TILE[2]].sum(axis=0) * 20.0
        return thresholds(0.0, host_arrays())(tiles + place.astype(np.float32) / 1000)

    def volumes_cm3(way: str) -> Any:
        geometry = series_grid(way, (26, 26, 26), (4.0, 4.0, 4.0))
        ensemble = ensemble_of([leaning], input=INPUT)
        labels = labels_of(ensemble, scan(cylinder, geometry))
        return np.bincount(labels.ravel(), minlength=3)

    assert np.array_equal(volumes_cm3(position), volumes_cm3("HFS"))


def test_mirrored_tiles_are_asked_as_well_and_their_logits_averaged(volume: CtVolume) -> None:
    def one_sided(tiles: Any) -> Any:
        logits = np.zeros((len(tiles), 3, *TILE), np.float32)
        logits[:, 1, :, :, : TILE[2] // 2] = 2.0  # only in one half of the tile, whatever it shows
        logits[:, 0] = 0.9
        return logits

    both = ensemble_of([one_sided], input=INPUT | {"mirror": ["x"], "skip_air": False})
    alone = ensemble_of([one_sided], input=INPUT | {"skip_air": False})
    assert (labels_of(both, volume) == 1).all()  # 1.0 on average, everywhere
    assert 0.2 < (labels_of(alone, volume) == 1).mean() < 0.8
    assert len(both.networks[0].batches) == 2 * len(alone.networks[0].batches)  # type: ignore[attr-defined]


def test_folds_are_spared_where_the_first_two_agree_and_nowhere_else(volume: CtVolume) -> None:
    calls: list[tuple[int, int, int]] = []
    every, spared = three_folds(), three_folds(early_exit=0.98)
    first = every.label(volume, not_watched)
    second = spared.label(volume, lambda *call: calls.append(call))
    asked = [sum(network.batches) for network in spared.networks]  # type: ignore[attr-defined]
    assert asked[0] == asked[1] > asked[2] > 0
    assert calls[-1][1] == calls[-1][2] == sum(asked)
    for number in (1, 2):
        assert dice(first.labels.voxels == number, second.labels.voxels == number) > 0.97
    never = three_folds(early_exit=1.0)
    assert np.array_equal(labels_of(never, volume)[volume.hu < -1000], first.labels.voxels[volume.hu < -1000])


def test_the_agreement_is_that_of_the_folds_own_masks_voxel_by_voxel(volume: CtVolume) -> None:
    rois = [
        {"name": "External", "classes": ["class_1", "class_2"]},
        {"name": "Bone", "classes": ["class_2"]},
    ]
    labelled = three_folds(rois=rois).label(volume, not_watched)
    folds = [one.argmax(axis=0) for one in fold_logits(volume)]
    pairs = [(0, 1), (0, 2), (1, 2)]
    for classes in ([2], [1, 2]):
        masks = [np.isin(one, classes) for one in folds]
        expected = np.mean([dice(masks[first], masks[second]) for first, second in pairs])
        assert labelled.agreement.pairwise_dice(classes) == pytest.approx(expected, abs=1e-6)
    left = labelled.agreement.left_right_mm > labelled.agreement.left_right_mm.mean()
    masks = [(one == 2)[:, :, left] for one in folds]
    expected = np.mean([dice(masks[first], masks[second]) for first, second in pairs])
    assert labelled.agreement.pairwise_dice([2], left) == pytest.approx(expected, abs=1e-6)


def test_the_entropy_is_that_of_the_mean_prediction_within_the_structure(volume: CtVolume) -> None:
    labelled = three_folds().label(volume, not_watched)
    likely = answers("mean_softmax", volume)
    entropy = -(likely * np.log(np.clip(likely, 1e-12, 1))).sum(axis=0)
    bone = likely.argmax(axis=0) == 2
    assert labelled.agreement.mean_entropy([2]) == pytest.approx(float(entropy[bone].mean()), rel=1e-3)
    assert labelled.agreement.voxels[1].sum() == np.count_nonzero(bone)


def test_one_fold_alone_has_no_agreement(volume: CtVolume) -> None:
    alone = ensemble_of([thresholds(0.0, host_arrays())], input=INPUT).label(volume, not_watched)
    assert alone.agreement.pairwise_dice([1]) is None
    assert alone.agreement.mean_entropy([1]) is not None


def test_each_network_run_is_reported_fold_by_fold(volume: CtVolume) -> None:
    calls: list[tuple[int, int, int]] = []
    three_folds().label(volume, lambda *call: calls.append(call))
    assert [fold for fold, _, _ in calls] == [0, 1, 2] * (len(calls) // 3)
    assert [done for _, done, _ in calls] == list(range(1, len(calls) + 1))
    assert {total for _, _, total in calls} == {len(calls)}


class StopAskedError(Exception):
    pass


def test_raising_from_the_report_stops_at_once_and_leaves_the_ensemble_usable(volume: CtVolume) -> None:
    runs = []

    def stop_after_four(_fold: int, done: int, _total: int) -> None:
        runs.append(done)
        if done == 4:
            raise StopAskedError

    ensemble = three_folds()
    before = labels_of(ensemble, volume)
    with pytest.raises(StopAskedError):
        ensemble.label(volume, stop_after_four)
    assert runs == [1, 2, 3, 4]
    assert np.array_equal(labels_of(ensemble, volume), before)


def test_tiles_of_air_are_background_without_asking_a_network() -> None:
    two_legs = scan(
        lambda x, y, _z: np.where(np.hypot(np.abs(x) - 100, y) < 20, 40, -1000),
        series_grid("HFS", (8, 20, 80), (4.0, 4.0, 4.0)),
    )
    for way in ("mean_softmax", "mean_logits", "majority"):
        calls: list[int] = []
        watched = three_folds(ensemble=way).label(two_legs, lambda _fold, done, _total, calls=calls: calls.append(done))
        assert (watched.labels.voxels[..., 35:45] == 0).all()
        assert 0 < len(calls) < 0.7 * 3 * 39


def test_a_scan_of_air_alone_is_background_alone() -> None:
    air = scan(lambda *at: np.full_like(at[0], -1000), series_grid("HFS", (10, 20, 20), (4.0, 4.0, 4.0)))
    labelled: Labelled = three_folds().label(air, pytest.fail)
    assert not labelled.labels.voxels.any()
    assert labelled.labels.boxes == {}


def test_the_class_volume_of_the_whole_scan_is_never_held() -> None:
    tall = scan(cylinder, series_grid("HFS", (200, 40, 40), (4.0, 4.0, 4.0)))
    ensemble = ensemble_of([thresholds(0.0, host_arrays())], input=INPUT, classes=3)
    tracemalloc.start()
    ensemble.label(tall, not_watched)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    labels_and_volume = 2 * tall.hu.size + 2 * 4 * tall.hu.size
    assert peak_bytes - labels_and_volume < 3 * 4 * tall.hu.size / 2


def test_a_scan_outside_the_models_limits_is_refused_before_any_run() -> None:
    thick = scan(cylinder, series_grid("HFS", (6, 40, 40), (9.0, 4.0, 4.0)))
    with pytest.raises(SeriesRefused) as caught:
        segment(three_folds(), thick, ScanDescription(), pytest.fail)
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
    assert "(4, 8, 12, 12)" in caught.value.sentence


def test_a_network_that_answers_with_no_numbers_is_refused(tmp_path: Path, volume: CtVolume) -> None:
    folder = make_threshold_package(tmp_path, tile=TILE, fold_shifts_hu=(0.0, float("nan")))
    ensemble = open_ensemble(load_package(folder), threads=1)
    with pytest.raises(ModelRefused) as caught:
        ensemble.label(volume, not_watched)
    assert caught.value.reason is Reason.MODEL_INVALID
    assert "fold_1.onnx" in caught.value.sentence


def test_the_engine_runs_without_torch() -> None:
    script = "import appliance.segmentation.opening, appliance.segmentation.segment, sys; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
