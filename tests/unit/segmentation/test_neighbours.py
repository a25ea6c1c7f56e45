"""Rules between structures: who gets the slices that two share, and who touches whom."""

from typing import Any

import numpy as np
import pytest

from appliance.dicom.roi import RoiMask
from appliance.segmentation.manifest import SliceExclusion
from appliance.segmentation.neighbours import apart, touching
from appliance.segmentation.working_grid import WorkingGrid
from tests.support.ct_volumes import series_grid

SHAPE = (10, 8, 12)


def block(name: str, slices: slice, columns: slice) -> RoiMask:
    voxels = np.zeros(SHAPE, np.bool_)
    voxels[slices, 2:6, columns] = True
    return RoiMask.from_volume(name, voxels).with_certainty(np.full(SHAPE, 200, np.uint8))


def slices_of(mask: RoiMask) -> list[int]:
    return np.flatnonzero(mask.in_grid(SHAPE).any(axis=(1, 2))).tolist()


def parted(position: str, lower_dominates: bool, *masks: RoiMask) -> dict[str, RoiMask]:
    grid = WorkingGrid.over(series_grid(position, SHAPE, (3.0, 2.0, 2.0)), (4.0, 4.0, 4.0))
    rule = SliceExclusion(higher="Brainstem", lower="SpinalCord", higher_dominates=not lower_dominates)
    return apart({mask.name: mask for mask in masks}, [rule], grid)


@pytest.mark.parametrize("lower_dominates", [False, True])
def test_shared_slices_go_to_the_one_that_dominates(lower_dominates: bool) -> None:
    stem, cord = block("Brainstem", slice(4, 9), slice(1, 5)), block("SpinalCord", slice(0, 7), slice(6, 9))
    found = parted("HFS", lower_dominates, stem, cord)
    expected = ([7, 8], [*range(7)]) if lower_dominates else ([*range(4, 9)], [*range(4)])
    assert (slices_of(found["Brainstem"]), slices_of(found["SpinalCord"])) == expected
    both = sum(int(mask.voxels.sum()) for mask in found.values())
    assert both == int(stem.voxels.sum() + cord.voxels.sum()), "voxels change hands, none are lost"


def test_head_and_feet_are_the_patients_and_not_the_order_of_the_slices() -> None:
    stem, cord = block("Brainstem", slice(1, 6), slice(1, 5)), block("SpinalCord", slice(4, 9), slice(6, 9))
    found = parted("FFS", False, stem, cord)  # the slices run from head to feet
    assert (slices_of(found["Brainstem"]), slices_of(found["SpinalCord"])) == ([*range(1, 6)], [6, 7, 8])


@pytest.mark.parametrize("position", ["HFS", "FFS"])
def test_structures_that_share_no_slice_and_lonely_ones_are_left_alone(position: str) -> None:
    high, low = (slice(5, 9), slice(0, 5)) if position == "HFS" else (slice(0, 5), slice(5, 9))
    stem, cord = block("Brainstem", high, slice(1, 5)), block("SpinalCord", low, slice(6, 9))
    assert parted(position, False, stem, cord) == {"Brainstem": stem, "SpinalCord": cord}
    assert parted(position, False, cord) == {"SpinalCord": cord}


def test_a_structure_of_which_nothing_is_left_is_not_found() -> None:
    stem, cord = block("Brainstem", slice(2, 9), slice(1, 5)), block("SpinalCord", slice(3, 5), slice(6, 9))
    assert list(parted("HFS", False, stem, cord)) == ["Brainstem"]


def test_contours_of_what_changed_hands_stay_where_certainty_put_them() -> None:
    stem, cord = block("Brainstem", slice(4, 9), slice(1, 5)), block("SpinalCord", slice(0, 7), slice(6, 9))
    found = parted("HFS", False, stem, cord)
    certainty = found["Brainstem"].certainty
    assert certainty is not None
    assert (certainty[found["Brainstem"].voxels] == 200).all()


def one_voxel(*at: int) -> RoiMask:
    voxels = np.zeros(SHAPE, np.bool_)
    voxels[at] = True
    return RoiMask.from_volume("One", voxels)


@pytest.mark.parametrize(
    ("at", "touches"),
    [((5, 3, 3), True), ((5, 3, 5), True), ((4, 3, 4), True), ((5, 4, 5), False), ((5, 3, 6), False)],
)
def test_structures_touch_where_voxels_are_shared_or_share_a_face(at: Any, touches: bool) -> None:
    voxels = np.zeros(SHAPE, np.bool_)
    voxels[5, 2:4, 3:5] = True
    other = RoiMask.from_volume("Other", voxels)
    assert touching(one_voxel(*at), other) is touches
    assert touching(other, one_voxel(*at)) is touches
