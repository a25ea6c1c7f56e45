"""Contours give their mask back voxel for voxel, whatever its shape."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from appliance.dicom.contours import SLAB, Contour, Drawing, RoiContours, trace
from appliance.dicom.geometry import SeriesGeometry
from appliance.dicom.rasterising import rasterise
from appliance.dicom.roi import RoiMask
from tests.support.ct_volumes import PATIENT_POSITIONS, series_grid
from tests.support.structure_sets import sample_regions

Mask = NDArray[np.bool_]
masks = arrays(np.bool_, array_shapes(min_dims=3, max_dims=3, max_side=9))


def grid(shape: tuple[int, ...]) -> SeriesGeometry:
    return SeriesGeometry.axial((shape[0], shape[1], shape[2]), (3.0, 0.9, 1.3), (-185.044, -311.319, -812.0))


def traced(voxels: Mask, *, keyhole: bool = False) -> RoiContours:
    return trace(RoiMask.from_volume("Test", voxels), grid(voxels.shape), Drawing(keyhole=keyhole))


def area_mm2(contour: Contour) -> float:
    """Return the signed area about the z axis."""
    x, y = contour.points_mm[:, 0], contour.points_mm[:, 1]
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2


@pytest.mark.parametrize("keyhole", [False, True])
@given(voxels=masks)
def test_filling_the_contours_gives_the_mask_back(voxels: Mask, keyhole: bool) -> None:
    filled = rasterise(traced(voxels, keyhole=keyhole), grid(voxels.shape))
    np.testing.assert_array_equal(filled.in_grid(voxels.shape), voxels)


@pytest.mark.parametrize("keyhole", [False, True])
@given(voxels=masks)
def test_every_contour_has_three_points_on_one_slice_and_none_on_a_straight_line(voxels: Mask, keyhole: bool) -> None:
    contours = traced(voxels, keyhole=keyhole).contours
    assert [contour.slice_index for contour in contours] == sorted(contour.slice_index for contour in contours)
    for contour in contours:
        assert len(contour.points_mm) >= 3
        assert (contour.points_mm[:, 2] == -812.0 + 3.0 * contour.slice_index).all()
        steps = np.roll(contour.points_mm, -1, axis=0) - contour.points_mm
        before = np.roll(steps, 1, axis=0)
        straight = np.isclose(np.cross(before, steps)[:, 2], 0.0) & (np.sum(before * steps, axis=1) > 0)
        assert not straight.any()


@pytest.mark.parametrize("position", PATIENT_POSITIONS)
@pytest.mark.parametrize("region", sample_regions((3, 10, 12)))
def test_hard_shapes_are_exact_in_every_patient_position(position: str, region: str) -> None:
    shape = (3, 10, 12)
    geometry = series_grid(position, shape, (3.0, 0.9, 1.3), (10.0, -20.0, -800.0))
    voxels = sample_regions(shape)[region]
    contours = trace(RoiMask.from_volume(region, voxels), geometry)
    np.testing.assert_array_equal(rasterise(contours, geometry).in_grid(shape), voxels)


def test_a_lone_voxel_is_a_diamond_around_its_centre() -> None:
    voxels = np.zeros((1, 3, 4), dtype=np.bool_)
    voxels[0, 1, 2] = True
    (contour,) = trace(RoiMask.from_volume("Test", voxels), SeriesGeometry.axial((1, 3, 4), (3.0, 2.0, 4.0))).contours
    assert {tuple(point) for point in contour.points_mm.tolist()} == {(8, 1, 0), (10, 2, 0), (8, 3, 0), (6, 2, 0)}


def test_contours_run_halfway_between_voxels_so_nothing_shrinks() -> None:
    voxels = np.zeros((1, 30, 30), dtype=np.bool_)
    voxels[0, 5:25, 5:25] = True
    (contour,) = trace(RoiMask.from_volume("Test", voxels), SeriesGeometry.axial((1, 30, 30), (3.0, 1.0, 1.0))).contours
    assert contour.points_mm[:, :2].min() == 4.5
    assert contour.points_mm[:, :2].max() == 24.5
    assert len(contour.points_mm) == 8
    assert area_mm2(contour) == 400 - 4 * 0.125


def test_voxels_that_touch_by_a_corner_are_outlined_apart() -> None:
    voxels = np.array([[[1, 0], [0, 1]]], dtype=np.bool_)
    assert len(traced(voxels).contours) == 2


def test_outer_boundaries_run_anticlockwise_and_holes_clockwise() -> None:
    voxels = np.ones((1, 7, 7), dtype=np.bool_)
    voxels[0, 2:5, 2:5] = False
    voxels[0, 3, 3] = True
    areas_mm2 = [area_mm2(contour) for contour in traced(voxels).contours]
    assert [area > 0 for area in areas_mm2] == [True, False, True]


def test_a_keyhole_leaves_one_contour_for_each_outer_boundary() -> None:
    voxels = np.ones((1, 9, 16), dtype=np.bool_)
    voxels[0, 2:7, 2:7] = voxels[0, 4, 9] = voxels[0, 4, 11] = voxels[0, 4:6, 13] = False
    assert len(traced(voxels).contours) == 5
    (contour,) = traced(voxels, keyhole=True).contours
    assert area_mm2(contour) == pytest.approx(sum(area_mm2(one) for one in traced(voxels).contours))


@given(voxels=masks)
def test_keyholes_join_every_hole_to_what_surrounds_it(voxels: Mask) -> None:
    apart, joined = traced(voxels).contours, traced(voxels, keyhole=True).contours
    assert all(area_mm2(contour) > 0 for contour in joined)
    assert len(joined) == sum(area_mm2(contour) > 0 for contour in apart)
    assert sum(map(area_mm2, joined)) == pytest.approx(sum(map(area_mm2, apart)))


def test_slices_on_either_side_of_a_slab_border_keep_their_places() -> None:
    voxels = np.zeros((SLAB + 3, 4, 4), dtype=np.bool_)
    voxels[SLAB - 1 : SLAB + 1, 1:3, 1:3] = True
    voxels[0, 0, 0] = True
    assert [contour.slice_index for contour in traced(voxels).contours] == [0, SLAB - 1, SLAB]


def test_contours_follow_the_position_of_each_slice() -> None:
    positions_mm = np.array([(0.0, 0.0, 0.0), (0.04, -0.03, 3.02), (0.0, 0.0, 5.98)])
    geometry = SeriesGeometry(positions_mm, (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (1.0, 1.0), 3, 3)
    contours = trace(RoiMask.from_volume("Test", np.ones((3, 3, 3), dtype=np.bool_)), geometry).contours
    for contour, position_mm in zip(contours, positions_mm, strict=True):
        np.testing.assert_allclose(contour.points_mm.min(axis=0), position_mm - (0.5, 0.5, 0.0))


def test_an_empty_mask_has_no_contours_and_no_contours_fill_nothing() -> None:
    nothing = traced(np.zeros((2, 3, 4), dtype=np.bool_))
    assert nothing.contours == ()
    assert rasterise(nothing, grid((2, 3, 4))).is_empty


@given(shift=st.tuples(st.integers(-2000, 2000), st.integers(-2000, 2000)))
def test_contours_that_leave_the_grid_fill_only_what_lies_within(shift: tuple[int, int]) -> None:
    square = np.array([(2.0, 2.0), (6.0, 2.0), (6.0, 5.0), (2.0, 5.0)]) + np.array(shift) / 128
    geometry = SeriesGeometry.axial((1, 8, 9), (1.0, 1.0, 1.0))
    contours = RoiContours("Test", (Contour(0, np.c_[square, np.zeros(4)]),))
    rows, columns = np.mgrid[:8, :9]
    (left, top), (right, bottom) = square[0], square[2]
    inside = (columns >= left) & (columns < right) & (rows >= top) & (rows < bottom)
    np.testing.assert_array_equal(rasterise(contours, geometry).in_grid((1, 8, 9))[0], inside)
