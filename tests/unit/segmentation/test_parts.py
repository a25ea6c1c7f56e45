"""Which connected parts are kept, and the holes that they enclose."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from appliance.dicom.geometry import SeriesGeometry
from appliance.dicom.roi import RoiMask
from appliance.segmentation.parts import fill_axial_holes, fill_holes, keep_parts, limit_parts
from appliance.settings import RoiChoice


def parts_of_10_5_and_1() -> Any:
    mask = np.zeros((3, 8, 12), np.bool_)
    mask[0:1, 0:2, 0:5] = True
    mask[2, 4, 6:11] = True
    mask[2, 7, 0] = True
    return mask


@pytest.mark.parametrize(
    ("keep", "voxels"),
    [
        ("all", 16),
        ("largest", 10),
        ("min_fraction:0.5", 15),
        ("min_fraction:0.05", 16),
        ("min_share:0.3", 15),
        ("min_share:0.4", 10),
        ("min_share:0.9", 10),
    ],
)
def test_only_the_named_parts_are_kept(keep: str, voxels: int) -> None:
    assert np.count_nonzero(keep_parts(parts_of_10_5_and_1(), keep)) == voxels


def test_of_two_equal_parts_the_largest_is_still_one() -> None:
    mask = np.zeros((1, 3, 9), np.bool_)
    mask[0, 1, [1, 2, 6, 7]] = True
    assert keep_parts(mask, "largest")[0, 1].tolist() == [False, True, True] + [False] * 6


def test_an_empty_mask_stays_empty() -> None:
    assert not keep_parts(np.zeros((2, 3, 4), np.bool_), "largest").any()


def test_holes_in_space_are_filled_and_tunnels_stay_open() -> None:
    mask = np.ones((5, 7, 9), np.bool_)
    mask[2, 3, 3] = False
    mask[:, 3, 6] = False
    filled = fill_holes(mask)
    assert filled[2, 3, 3]
    assert not filled[:, 3, 6].any()


def test_holes_are_filled_where_their_slice_encloses_them() -> None:
    mask = np.zeros((3, 7, 7), np.bool_)
    mask[:, 1:6, 1:6] = True
    mask[:, 3, 3] = False  # a tunnel through all slices
    mask[1, 3, 3:7] = False  # open to the side in the middle slice
    filled = fill_axial_holes(mask)
    assert filled[0, 3, 3]
    assert filled[2, 3, 3]
    assert not filled[1, 3, 3:].any()
    assert np.count_nonzero(filled) == np.count_nonzero(mask) + 2


@pytest.mark.parametrize("gap", [np.s_[0, 2], np.s_[4, 2], np.s_[2, 0], np.s_[2, 4]])
def test_a_notch_in_any_edge_is_no_hole(gap: Any) -> None:
    mask = np.ones((1, 5, 5), np.bool_)
    mask[0][gap] = False
    assert np.array_equal(fill_axial_holes(mask), mask)


GEOMETRY = SeriesGeometry.axial((3, 8, 12), (5.0, 2.0, 2.0))  # a voxel is 0.02 cm³, a pixel 4 mm²


def limited(voxels: Any, **limits: Any) -> Any:
    mask = RoiMask.from_volume("Any", voxels)
    return limit_parts(mask, RoiChoice(roi="Any", **limits), GEOMETRY).in_grid(GEOMETRY.shape)


def test_without_limits_a_region_is_left_as_it_is() -> None:
    mask = RoiMask.from_volume("Any", parts_of_10_5_and_1())
    assert limit_parts(mask, RoiChoice(roi="Any"), GEOMETRY) is mask
    assert limit_parts(mask, RoiChoice(roi="Any", largest_parts=3, min_part_cm3=0.02), GEOMETRY) is mask


@pytest.mark.parametrize(
    ("limits", "voxels"),
    [
        ({"largest_parts": 1}, 10),
        ({"largest_parts": 2}, 15),
        ({"min_part_cm3": 0.1}, 15),
        ({"min_part_cm3": 0.11}, 10),
        ({"min_area_mm2": 20.0}, 15),
        ({"min_area_mm2": 20.5}, 10),
        ({"min_area_mm2": 4.0, "min_part_cm3": 0.03, "largest_parts": 1}, 10),
        ({"min_part_cm3": 1.0}, 0),
    ],
)
def test_parts_beyond_the_limits_are_left_out(limits: dict[str, Any], voxels: int) -> None:
    assert np.count_nonzero(limited(parts_of_10_5_and_1(), **limits)) == voxels


def test_a_part_is_as_large_as_its_slices_are_thick() -> None:
    heights_mm = np.array([0.0, 2, 4, 6, 16, 26])
    geometry = SeriesGeometry(np.outer(heights_mm, [0, 0, 1]), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (1.0, 1.0), 8, 8)
    voxels = np.zeros(geometry.shape, np.bool_)
    voxels[1, :2, :4] = True  # 8 voxels of 2 mm
    voxels[4, 5, :2] = True  # 2 voxels of 10 mm
    kept = limit_parts(RoiMask.from_volume("Any", voxels), RoiChoice(roi="Any", largest_parts=1), geometry)
    assert kept.box == (slice(4, 5), slice(5, 6), slice(0, 2))


def test_a_region_of_a_slice_is_joined_by_sides_and_not_by_corners() -> None:
    voxels = np.zeros(GEOMETRY.shape, np.bool_)
    voxels[1, 2:4, 2:4] = True
    voxels[1, 4, 4] = True
    assert np.argwhere(limited(voxels, min_area_mm2=8.0)).max(axis=0).tolist() == [1, 3, 3]


def test_what_goes_from_a_slice_can_part_what_was_one() -> None:
    voxels = np.zeros(GEOMETRY.shape, np.bool_)
    voxels[0, :3, :3] = True
    voxels[1, 1, 1] = True  # a thread between two parts
    voxels[2, :2, :3] = True
    assert np.argwhere(limited(voxels, min_area_mm2=8.0, largest_parts=1))[:, 0].tolist() == [0] * 9


def test_what_is_left_out_is_outside_for_sure() -> None:
    voxels = parts_of_10_5_and_1()
    mask = RoiMask.from_volume("Any", voxels).with_certainty(np.full(voxels.shape, 7, np.uint8))
    kept = limit_parts(mask, RoiChoice(roi="Any", min_part_cm3=0.05), GEOMETRY)
    assert kept.certainty is not None
    assert kept.box == (slice(0, 3), slice(0, 6), slice(0, 12))
    grid = np.zeros(voxels.shape, np.uint8)
    grid[kept.box] = kept.certainty
    assert grid[2, 5, 0] == 7
    whole = limit_parts(mask, RoiChoice(roi="Any", largest_parts=1), GEOMETRY)
    assert whole.certainty is not None
    assert whole.box == (slice(0, 1), slice(0, 3), slice(0, 6))
    assert (whole.certainty == 7).all()
    speck = np.zeros((1, 5, 5), np.bool_)
    speck[0, 1, 1:4] = speck[0, 3, 3] = speck[0, 2, 1] = True
    geometry = SeriesGeometry.axial((1, 5, 5), (1.0, 1.0, 1.0))
    near = RoiMask.from_volume("Any", speck).with_certainty(np.full(speck.shape, 9, np.uint8))
    left = limit_parts(near, RoiChoice(roi="Any", min_area_mm2=2.0), geometry)
    assert left.certainty is not None
    assert left.certainty[0, 3, 3] == 255


@settings(max_examples=60, deadline=None)
@given(
    voxels=arrays.arrays(np.bool_, GEOMETRY.shape, elements=st.booleans()),
    most=st.integers(1, 4),
    least_cm3=st.floats(0, 0.4),
    least_mm2=st.floats(0, 40),
)
def test_every_limit_holds_for_what_is_left(voxels: Any, most: int, least_cm3: float, least_mm2: float) -> None:
    limits = {"largest_parts": most, "min_part_cm3": least_cm3, "min_area_mm2": least_mm2}
    left = limited(voxels, **limits)
    assert not (left & ~voxels).any()
    parts, count = ndimage.label(left)
    assert count <= most
    assert all(np.count_nonzero(parts == part) * 0.02 >= least_cm3 * 0.999 for part in range(1, count + 1))
    for plane in left:
        regions, count = ndimage.label(plane)
        assert all(np.count_nonzero(regions == one) * 4 >= least_mm2 * 0.999 for one in range(1, count + 1))
    assert np.array_equal(limited(left, **limits), left)
