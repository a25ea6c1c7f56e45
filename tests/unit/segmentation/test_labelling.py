import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from appliance.segmentation.arrays import Arrays, host_arrays
from appliance.segmentation.labelling import Labelling
from appliance.segmentation.manifest import Manifest
from appliance.segmentation.resample import linear_weights
from appliance.segmentation.roi_rules import ClassLabels
from appliance.segmentation.working_grid import WorkingGrid
from tests.support.array_libraries import ARRAY_LIBRARIES
from tests.support.ct_volumes import PATIENT_POSITIONS, series_grid
from tests.support.model_packages import manifest_of_classes

SPACING_MM = (4.0, 4.0, 4.0)


def random_votes(grid: WorkingGrid, classes: int, seed: int, sharpness: float) -> Any:
    odds = np.exp(sharpness * np.random.default_rng(seed).normal(size=(classes, *grid.shape)))
    return (odds / odds.sum(axis=0)).astype(np.float32)


def labels_of(
    grid: WorkingGrid, votes: Any, manifest: Manifest | None = None, arrays: Arrays | None = None, at_once: int = 3
) -> ClassLabels:
    """Hand the votes over a few planes at a time, as finished rows of tiles are."""
    arrays = arrays or host_arrays()
    labelling = Labelling(grid, manifest or manifest_of_classes(len(votes)), arrays)
    for first in range(0, votes.shape[1], at_once):
        planes = arrays.array(votes[:, first : first + at_once].copy())
        labelling.take(first, planes)
        planes[...] = -1.0  # the engine writes over them
    return labelling.result()


def argmax_everywhere(grid: WorkingGrid, votes: Any) -> tuple[Any, Any]:
    """Labels by one argmax over all classes on the whole CT, and where rounding alone would decide."""
    over_z, over_y, over_x = (
        linear_weights(centres, ct_centres)
        for centres, ct_centres in zip(grid.centres_mm, grid.ct_centres_mm, strict=True)
    )
    everywhere = np.einsum("czyx,kz,jy,ix->ckji", votes.astype(np.float64), over_z, over_y, over_x, optimize=True)
    labels = everywhere.argmax(axis=0)
    first, second = np.sort(everywhere, axis=0)[:-3:-1]
    for axis, (centres, ct_centres) in enumerate(zip(grid.centres_mm, grid.ct_centres_mm, strict=True)):
        half_mm = (centres[1] - centres[0]) / 2
        outside = (ct_centres < centres[0] - half_mm) | (ct_centres > centres[-1] + half_mm)
        labels[tuple(outside if other == axis else slice(None) for other in range(3))] = 0
    return labels, first - second < 1e-6


def assert_equals_argmax(grid: WorkingGrid, votes: Any, **how: Any) -> None:
    labels, tied = argmax_everywhere(grid, votes)
    decided = labels_of(grid, votes, **how).voxels
    assert decided.any()
    assert np.count_nonzero(tied) < 0.01 * tied.size
    assert np.array_equal(decided[~tied], labels[~tied])


@pytest.mark.parametrize("position", PATIENT_POSITIONS)
@pytest.mark.parametrize("sharpness", [0.3, 2.0, 8.0])
def test_deciding_box_by_box_equals_the_argmax_over_all_classes_everywhere(position: str, sharpness: float) -> None:
    grid = WorkingGrid.over(series_grid(position, (21, 40, 33), (2.5, 1.1, 1.7)), SPACING_MM)
    for seed, classes in enumerate((2, 3, 5, 10)):
        assert_equals_argmax(grid, random_votes(grid, classes, seed, sharpness))


@pytest.mark.parametrize("at_once", [1, 2, 5, 100])
def test_the_labels_do_not_depend_on_how_many_planes_come_together(at_once: int) -> None:
    grid = WorkingGrid.over(series_grid("HFS", (40, 30, 33), (1.5, 2.1, 1.7)), SPACING_MM)
    votes = random_votes(grid, 4, 3, 2.0)
    assert_equals_argmax(grid, votes, at_once=at_once)
    once = labels_of(grid, votes, at_once=100)
    assert np.array_equal(labels_of(grid, votes, at_once=at_once).certainty, once.certainty)


@pytest.mark.parametrize("arrays", ARRAY_LIBRARIES)
def test_every_array_library_decides_the_same(arrays: Callable[[], Arrays]) -> None:
    grid = WorkingGrid.over(series_grid("FFP", (21, 40, 33), (2.5, 1.1, 1.7)), SPACING_MM)
    assert_equals_argmax(grid, random_votes(grid, 5, 1, 2.0), arrays=arrays())


def test_logits_are_compared_as_they_are_not_as_probabilities() -> None:
    grid = WorkingGrid.over(series_grid("HFS", (21, 40, 33), (2.5, 1.1, 1.7)), SPACING_MM)
    logits = np.random.default_rng(2).normal(0, 4, (5, *grid.shape)).astype(np.float32)
    manifest = manifest_of_classes(5, ensemble="mean_logits")
    assert_equals_argmax(grid, logits, manifest=manifest)
    certainty = labels_of(grid, logits, manifest).certainty
    assert 1 <= certainty.min() < 20
    assert certainty.max() == 255


def test_two_classes_that_together_outweigh_a_third_share_what_it_won() -> None:
    grid = WorkingGrid.over(series_grid("HFS", (8, 12, 12), (4.0, 4.0, 4.0)), SPACING_MM)
    votes = np.zeros((4, *grid.shape), np.float32)
    votes[1] = 1.0
    votes[:, :, :4] = np.array([0.0, 0.4, 0.25, 0.35], np.float32)[:, np.newaxis, np.newaxis, np.newaxis]
    votes[:, :, 8:] = np.array([0.0, 0.6, 0.25, 0.15], np.float32)[:, np.newaxis, np.newaxis, np.newaxis]
    rule = {"first": "class_2", "second": "class_3", "external": "class_1"}
    ruled = labels_of(grid, votes, manifest_of_classes(4, summed_probabilities=[rule]))
    assert (ruled.voxels[:, :3] == 3).all()  # 0.25 + 0.35 > 0.4, and 0.35 > 0.25
    assert (ruled.voxels[:, 5:] == 1).all()
    assert (ruled.voxels[ruled.boxes[3]] == 3).any()
    assert (labels_of(grid, votes).voxels == 1).all()


def test_a_cropped_grid_leaves_background_outside() -> None:
    whole = WorkingGrid.over(series_grid("HFP", (21, 40, 33), (2.5, 1.1, 1.7)), SPACING_MM)
    grid = whole.cropped((slice(3, 9), slice(2, 8), slice(5, 12)))
    votes = random_votes(grid, 4, 5, 2.0)
    assert_equals_argmax(grid, votes)
    assert not labels_of(grid, votes).voxels[0].any()


def one_small_organ(grid: WorkingGrid) -> Any:
    votes = np.zeros((4, *grid.shape), np.float32)
    votes[0] = 1.0
    votes[:, 4:7, 5:8, 2:5] = np.array([0.1, 0.0, 0.9, 0.0])[:, np.newaxis, np.newaxis, np.newaxis]
    return votes


def test_every_box_holds_all_voxels_of_its_class_and_little_more() -> None:
    grid = WorkingGrid.over(series_grid("HFS", (40, 60, 60), (1.0, 1.0, 1.0)), SPACING_MM)
    labels = labels_of(grid, one_small_organ(grid))
    assert list(labels.boxes) == [2]
    outside = labels.voxels.copy()
    outside[labels.boxes[2]] = 0
    assert not outside.any()
    assert np.count_nonzero(labels.voxels) > 11**3
    assert all(side.stop - side.start <= 3 * 4 + 2 * 4 + 4 for side in labels.boxes[2])


def test_background_alone_yields_no_box() -> None:
    grid = WorkingGrid.over(series_grid("HFS", (10, 20, 20), (2.0, 2.0, 2.0)), SPACING_MM)
    votes = np.zeros((3, *grid.shape), np.float32)
    votes[0] = 1.0
    labels = labels_of(grid, votes)
    assert labels.boxes == {}
    assert not labels.voxels.any()


def test_not_even_one_class_is_ever_held_on_the_whole_ct() -> None:
    grid = WorkingGrid.over(series_grid("HFS", (120, 96, 96), (1.0, 1.0, 1.0)), SPACING_MM)
    votes = random_votes(grid, 6, 0, 3.0)
    tracemalloc.start()
    labels_of(grid, votes)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    one_class_bytes = 120 * 96 * 96 * 4
    assert peak_bytes < one_class_bytes
