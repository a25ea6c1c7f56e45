import tracemalloc

import numpy as np
import pytest

from appliance.segmentation.postprocess import decide_classes
from appliance.segmentation.probabilities import RoiProbabilities
from appliance.segmentation.resample import linear_weights
from appliance.segmentation.working_grid import WorkingGrid
from tests.support.ct_volumes import PATIENT_POSITIONS, series_grid

SPACING_MM = (4.0, 4.0, 4.0)


def random_probabilities(grid: WorkingGrid, classes: int, seed: int, sharpness: float) -> RoiProbabilities:
    lengths = [len(centres) for centres in grid.centres_mm]
    shape = (classes, *(lengths[axis] for axis in grid.series_axes))
    odds = np.exp(sharpness * np.random.default_rng(seed).normal(size=shape))
    return RoiProbabilities((odds / odds.sum(axis=0)).astype(np.float32), grid)


def assert_equals_brute_force(probabilities: RoiProbabilities) -> None:
    grid = probabilities.grid
    over_z, over_y, over_x = (
        linear_weights(centres, ct_centres)
        for centres, ct_centres in zip(grid.centres_mm, grid.ct_centres_mm, strict=True)
    )
    in_series = grid.to_series(probabilities.mean_softmax).astype(np.float64)
    everywhere = np.einsum("czyx,kz,jy,ix->ckji", in_series, over_z, over_y, over_x, optimize=True)
    labels = everywhere.argmax(axis=0)
    first, second = np.sort(everywhere, axis=0)[:-3:-1]
    tied = first - second < 1e-6  # half way between two voxels; rounding alone decides
    for axis, (centres, ct_centres) in enumerate(zip(grid.centres_mm, grid.ct_centres_mm, strict=True)):
        half_mm = (centres[1] - centres[0]) / 2
        outside = (ct_centres < centres[0] - half_mm) | (ct_centres > centres[-1] + half_mm)
        labels[tuple(outside if other == axis else slice(None) for other in range(3))] = 0
    decided = decide_classes(probabilities).voxels
    assert decided.any()
    assert np.count_nonzero(tied) < 0.01 * tied.size
    assert np.array_equal(decided[~tied], labels[~tied])


@pytest.mark.parametrize("position", PATIENT_POSITIONS)
@pytest.mark.parametrize("sharpness", [0.3, 2.0, 8.0])
def test_deciding_box_by_box_equals_the_argmax_over_all_classes_everywhere(position: str, sharpness: float) -> None:
    grid = WorkingGrid.over(series_grid(position, (21, 40, 33), (2.5, 1.1, 1.7)), SPACING_MM)
    for seed, classes in enumerate((2, 3, 5, 10)):
        assert_equals_brute_force(random_probabilities(grid, classes, seed, sharpness))


def test_a_cropped_grid_leaves_background_outside() -> None:
    whole = WorkingGrid.over(series_grid("HFP", (21, 40, 33), (2.5, 1.1, 1.7)), SPACING_MM)
    grid = whole.cropped((slice(3, 9), slice(2, 8), slice(5, 12)))
    probabilities = random_probabilities(grid, 4, 5, 2.0)
    labels = decide_classes(probabilities).voxels
    assert_equals_brute_force(probabilities)
    assert not labels[0].any()


def one_small_organ(grid: WorkingGrid) -> RoiProbabilities:
    lengths = tuple(len(centres) for centres in grid.centres_mm)
    likely = np.zeros((4, *lengths), np.float32)
    likely[0] = 1.0
    likely[:, 4:7, 5:8, 2:5] = np.array([0.1, 0.0, 0.9, 0.0])[:, np.newaxis, np.newaxis, np.newaxis]
    return RoiProbabilities(likely, grid)


def test_every_box_holds_all_voxels_of_its_class_and_little_more() -> None:
    grid = WorkingGrid.over(series_grid("HFS", (40, 60, 60), (1.0, 1.0, 1.0)), SPACING_MM)
    labels = decide_classes(one_small_organ(grid))
    assert list(labels.boxes) == [2]
    outside = labels.voxels.copy()
    outside[labels.boxes[2]] = 0
    assert not outside.any()
    assert np.count_nonzero(labels.voxels) > 11**3
    assert all(side.stop - side.start <= 3 * 4 + 2 * 4 for side in labels.boxes[2])


def test_background_alone_yields_no_box() -> None:
    grid = WorkingGrid.over(series_grid("HFS", (10, 20, 20), (2.0, 2.0, 2.0)), SPACING_MM)
    likely = np.zeros((3, 5, 10, 10), np.float32)
    likely[0] = 1.0
    labels = decide_classes(RoiProbabilities(likely, grid))
    assert labels.boxes == {}
    assert not labels.voxels.any()


def test_not_even_one_class_is_ever_held_on_the_whole_ct() -> None:
    grid = WorkingGrid.over(series_grid("HFS", (120, 96, 96), (1.0, 1.0, 1.0)), SPACING_MM)
    probabilities = random_probabilities(grid, 6, 0, 3.0)
    tracemalloc.start()
    decide_classes(probabilities)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    one_class_bytes = 120 * 96 * 96 * 4
    assert peak_bytes < one_class_bytes
