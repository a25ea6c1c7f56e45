"""Margins and rings against shapes whose answer is known."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from appliance.dicom.geometry import SeriesGeometry
from appliance.dicom.roi import RoiMask
from appliance.segmentation.margins import ring, with_margin
from appliance.settings import SixWayMargin
from tests.support.ct_volumes import PATIENT_POSITIONS, mask_positions_mm, series_grid, voxel_centres_mm
from tests.support.solids import ball, block, solid, surface_points_mm

FINE = series_grid("HFS", (70, 70, 70), (1.0, 1.0, 1.0))
UNEVEN_SIDES = SixWayMargin(left=8, right=2, anterior=5, posterior=0, superior=9, inferior=3)


def tilted(degrees: float, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> SeriesGeometry:
    """Slices that a tilted gantry makes: turned about the left-right axis, each moved along the table."""
    straight = series_grid("HFS", shape, spacing_mm)
    angle = math.radians(degrees)
    column_direction = (0.0, math.cos(angle), math.sin(angle))
    first_mm = -(shape[2] - 1) / 2 * spacing_mm[2] * np.array([1.0, 0, 0])
    first_mm = first_mm - (shape[1] - 1) / 2 * spacing_mm[1] * np.array(column_direction)
    along_table_mm = (np.arange(shape[0]) - (shape[0] - 1) / 2) * spacing_mm[0] / math.cos(angle)
    positions_mm = first_mm + along_table_mm[:, np.newaxis] * np.array([0.0, 0.0, 1.0])
    return replace(straight, positions_mm=positions_mm, column_direction=column_direction)


def oblique(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> SeriesGeometry:
    """Planes turned by 20 degrees about the patient's length and by 10 about the left-right axis."""
    a, b = math.radians(20), math.radians(10)
    row = np.array([math.cos(a), math.sin(a), 0.0])
    column = np.array([-math.sin(a) * math.cos(b), math.cos(a) * math.cos(b), math.sin(b)])
    axes = np.array([np.cross(row, column), column, row]) * np.array(spacing_mm)[:, np.newaxis]
    first_mm = -(np.array(shape) - 1) / 2 @ axes
    positions_mm = first_mm + np.arange(shape[0])[:, np.newaxis] * axes[0]
    x, y, z = row.tolist()
    u, v, w = column.tolist()
    return SeriesGeometry(positions_mm, (x, y, z), (u, v, w), spacing_mm[1:], shape[1], shape[2])


def extent_mm(mask: RoiMask, geometry: SeriesGeometry) -> Any:
    """Least and greatest patient position along (x, y, z)."""
    points_mm = mask_positions_mm(mask, geometry)
    return points_mm.min(axis=0), points_mm.max(axis=0)


def test_no_margin_changes_nothing() -> None:
    mask = solid(ball(10), FINE, known_surface=True)
    assert with_margin(mask, FINE, 0.0) is mask
    assert with_margin(mask, FINE, SixWayMargin()) is mask


@pytest.mark.parametrize("margin_mm", [2.0, 5.0, 10.0, -2.0, -5.0, -10.0])
@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (3.0, 1.0, 1.0), (2.5, 1.4, 0.8)])
def test_a_sphere_grows_to_a_sphere_within_a_tenth_of_a_millimetre(
    margin_mm: float, spacing_mm: tuple[float, float, float]
) -> None:
    geometry = series_grid("HFS", tuple(int(66 / side) for side in spacing_mm), spacing_mm, middle_mm=(0.3, 0.2, 0.4))  # type: ignore[arg-type]
    grown = with_margin(solid(ball(20), geometry, known_surface=True), geometry, margin_mm)
    points_mm = surface_points_mm(grown, geometry)
    steep = np.abs(points_mm[:, 2]) < 0.5 * (20 + margin_mm)  # elsewhere the gap between slices decides
    off_mm = np.linalg.norm(points_mm[steep], axis=1) - (20 + margin_mm)
    assert abs(off_mm.mean()) < 0.1
    assert np.abs(off_mm).mean() < 0.1
    volume_cm3 = 4 / 3 * math.pi * (20 + margin_mm) ** 3 / 1000
    assert grown.volume_cm3(geometry) == pytest.approx(volume_cm3, rel=0.02 if spacing_mm[0] == 1 else 0.05)


@pytest.mark.parametrize("margin_mm", [3.0, 10.0])
def test_a_mask_without_certainty_grows_without_bias(margin_mm: float) -> None:
    grown = with_margin(solid(ball(20), FINE), FINE, margin_mm)
    off_mm = np.linalg.norm(surface_points_mm(grown, FINE), axis=1) - (20 + margin_mm)
    assert abs(off_mm.mean()) < 0.15


def test_the_faces_of_a_block_move_by_the_margin_exactly() -> None:
    mask = solid(block((10.5, 8.5, 6.5)), FINE, "Block")  # faces half-way between voxel centres, as contours are
    grown = with_margin(mask, FINE, 4.25)
    points_mm = surface_points_mm(grown, FINE)
    flat = (np.abs(points_mm[:, 1]) < 7) & (np.abs(points_mm[:, 2]) < 5)
    assert np.abs(points_mm[flat, 0]) == pytest.approx(10.5 + 4.25 + 0.5, abs=0.02)


def test_a_block_grows_by_faces_edges_and_corners_which_lose_half_a_voxel_of_their_sharpness() -> None:
    mask = solid(block((18, 16, 15)), FINE)
    a, b, c, r = 36.0, 32.0, 30.0, 6.0
    steiner = a * b * c + 2 * r * (a * b + b * c + c * a) + math.pi * r**2 * (a + b + c) + 4 / 3 * math.pi * r**3
    assert 0.98 < with_margin(mask, FINE, r).volume_cm3(FINE) * 1000 / steiner < 1.0


@pytest.mark.parametrize("position", PATIENT_POSITIONS)
def test_each_margin_goes_to_its_own_side_of_the_patient_in_every_position(position: str) -> None:
    geometry = series_grid(position, (40, 64, 64), (2.0, 1.0, 1.0))
    mask = solid(block((9, 7, 10)), geometry)
    grown = with_margin(mask, geometry, UNEVEN_SIDES)
    (right, anterior, inferior), (left, posterior, superior) = extent_mm(mask, geometry)
    low_mm, high_mm = extent_mm(grown, geometry)
    assert low_mm == pytest.approx([right - 2, anterior - 5, inferior - 3], abs=1.01)
    assert high_mm == pytest.approx([left + 8, posterior, superior + 9], abs=1.01)
    assert low_mm[:2] == pytest.approx([right - 2, anterior - 5])
    assert high_mm[:2] == pytest.approx([left + 8, posterior])
    shrunk = with_margin(mask, geometry, SixWayMargin(left=-4, posterior=-2, inferior=-6))
    low_mm, high_mm = extent_mm(shrunk, geometry)
    assert low_mm == pytest.approx([right, anterior, inferior + 6])
    assert high_mm == pytest.approx([left - 4, posterior - 2, superior])


def test_every_patient_position_gives_the_same_anatomy() -> None:
    found = []
    for position in PATIENT_POSITIONS:
        geometry = series_grid(position, (20, 48, 48), (2.0, 1.0, 1.0))
        grown = with_margin(solid(ball(12, (3.5, -2.5, 1.0)), geometry), geometry, UNEVEN_SIDES)
        found.append({tuple(point) for point in np.rint(2 * mask_positions_mm(grown, geometry)).astype(int).tolist()})
    assert all(points == found[0] for points in found)


def test_six_equal_margins_are_one_margin() -> None:
    mask = solid(ball(10), FINE)
    six = with_margin(mask, FINE, SixWayMargin(left=4, right=4, anterior=4, posterior=4, superior=4, inferior=4))
    assert np.array_equal(six.in_grid(FINE.shape), with_margin(mask, FINE, 4.0).in_grid(FINE.shape))


def test_a_six_way_margin_follows_the_ellipsoid_of_its_octant() -> None:
    mask = RoiMask.from_volume("Point", np.pad(np.ones((1, 1, 1), np.bool_), ((30, 39), (30, 39), (30, 39))))
    middle_mm = voxel_centres_mm(FINE)[30, 30, 30]
    sides = SixWayMargin(left=12, right=6, anterior=9, posterior=4, superior=8, inferior=15)
    away_mm = voxel_centres_mm(FINE) - middle_mm
    units = np.where(away_mm > 0, [12, 4, 8], [6, 9, 15])
    ellipsoid = np.linalg.norm(away_mm / units, axis=-1) <= 1
    grown = with_margin(mask, FINE, sides).in_grid(FINE.shape)
    assert not (ellipsoid & ~grown).any()
    # the point is a voxel, whose surface lies half a voxel from its centre
    assert not (grown & (np.linalg.norm(away_mm / (units + 1), axis=-1) > 1)).any()


def test_slices_at_uneven_distances_are_reached_by_their_own_positions() -> None:
    heights_mm = np.array([0.0, 3, 6, 9, 11, 13, 15, 20, 25, 30])
    even = SeriesGeometry.axial((10, 30, 30), (3.0, 1.0, 1.0))
    geometry = replace(even, positions_mm=np.column_stack([np.zeros(10), np.zeros(10), heights_mm]))
    voxels = np.zeros(geometry.shape, np.bool_)
    voxels[3:6, 10:20, 10:20] = True  # from 9 to 13, reaching to 7.5 and 14
    for margin_mm, slices in (
        (0.9, (3, 6)),
        (1.1, (3, 7)),
        (1.5, (2, 7)),
        (4.6, (1, 7)),
        (5.9, (1, 7)),
        (6.1, (1, 8)),
        (11.1, (0, 9)),
    ):
        grown = with_margin(RoiMask.from_volume("Block", voxels), geometry, margin_mm)
        assert (grown.box[0].start, grown.box[0].stop) == slices, margin_mm
    assert with_margin(RoiMask.from_volume("Block", voxels), geometry, -1.6).box[0] == slice(4, 5)


@pytest.mark.parametrize(
    "geometry", [tilted(15, (30, 60, 60), (2.5, 1.0, 1.2)), oblique((30, 60, 60), (2.5, 1.0, 1.2))]
)
@pytest.mark.parametrize("margin_mm", [8.0, -6.0])
def test_tilted_and_oblique_slices_grow_the_same_sphere(geometry: SeriesGeometry, margin_mm: float) -> None:
    grown = with_margin(solid(ball(16), geometry, known_surface=True), geometry, margin_mm)
    points_mm = surface_points_mm(grown, geometry)
    steep = np.abs(points_mm @ np.asarray(geometry.normal)) < 0.5 * (16 + margin_mm)
    off_mm = np.linalg.norm(points_mm[steep], axis=1) - (16 + margin_mm)
    assert abs(off_mm.mean()) < 0.1
    assert np.abs(off_mm).mean() < 0.15


@pytest.mark.parametrize(
    "geometry", [tilted(15, (36, 60, 60), (2.0, 1.0, 1.0)), oblique((36, 60, 60), (2.0, 1.0, 1.0))]
)
def test_six_sides_are_the_patients_in_tilted_and_oblique_slices_too(geometry: SeriesGeometry) -> None:
    mask = solid(block((10, 8, 9)), geometry, known_surface=True)
    grown = with_margin(mask, geometry, UNEVEN_SIDES)
    low_mm, high_mm = extent_mm(grown, geometry)
    assert low_mm == pytest.approx([-12, -13, -12], abs=1.6)
    assert high_mm == pytest.approx([18, 8, 18], abs=1.6)
    shrunk = with_margin(mask, geometry, SixWayMargin(left=-6, inferior=-5))
    low_mm, high_mm = extent_mm(shrunk, geometry)
    assert low_mm == pytest.approx([-10, -8, -4], abs=1.6)
    assert high_mm == pytest.approx([4, 8, 9], abs=1.6)


def test_nothing_grows_beyond_the_grid() -> None:
    geometry = series_grid("HFS", (10, 20, 20), (2.0, 1.0, 1.0))
    mask = solid(ball(6, (8, 0, 8)), geometry)
    grown = with_margin(mask, geometry, 30.0)
    assert grown.voxels.all()
    assert grown.voxels.shape == geometry.shape


def test_what_the_scan_cuts_off_is_not_shrunk_from_there() -> None:
    geometry = series_grid("HFS", (10, 30, 30), (2.0, 1.0, 1.0))
    voxels = np.zeros(geometry.shape, np.bool_)
    voxels[:, 10:25, 15:] = True  # through all slices, and to the border on one side
    shrunk = with_margin(RoiMask.from_volume("Body", voxels), geometry, -4.0)
    assert shrunk.in_grid(geometry.shape)[:, 14:21, 19:].all()
    assert np.count_nonzero(shrunk.voxels) == 10 * 7 * 11
    oblique_sides = with_margin(RoiMask.from_volume("Body", voxels), geometry, SixWayMargin(superior=-4, inferior=-4))
    assert np.array_equal(oblique_sides.in_grid(geometry.shape), voxels)


def test_shrinking_by_more_than_there_is_leaves_nothing() -> None:
    assert with_margin(solid(ball(5), FINE), FINE, -6.0).is_empty
    assert ring(solid(ball(5), FINE), FINE, -20.0, -6.0).is_empty


def test_nothing_stays_nothing() -> None:
    nothing = RoiMask.from_volume("None", np.zeros(FINE.shape, np.bool_))
    for margin_mm in (5.0, -5.0, UNEVEN_SIDES):
        assert with_margin(nothing, FINE, margin_mm).is_empty
    assert ring(nothing, FINE, 1.0, 3.0).is_empty


def test_parts_that_end_do_so_half_way_to_the_next_slice_whatever_else_is_there() -> None:
    geometry = series_grid("HFS", (20, 20, 90), (4.0, 1.0, 1.0))
    alone, beside = np.zeros((2, *geometry.shape), np.bool_)
    alone[5:10, 5:15, 5:15] = True
    beside[:, 5:15, 70:85] = True
    for margin_mm in (1.0, 5.9, 6.1, 9.0):
        one, both = (
            with_margin(RoiMask.from_volume("Part", voxels), geometry, margin_mm).in_grid(geometry.shape)[..., :45]
            for voxels in (alone, alone | beside)
        )
        assert np.array_equal(one, both)
        assert np.count_nonzero(one.any(axis=(1, 2))) == 5 + 2 * math.floor((margin_mm + 2) / 4)


def test_a_result_keeps_the_neighbours_that_contours_ask() -> None:
    grown = with_margin(solid(ball(10), FINE), FINE, 3.0)
    assert grown.certainty is not None
    assert grown.certainty.min() > 0
    for axis in (1, 2):
        sides = np.moveaxis(grown.voxels, axis, 0)
        assert not sides[0].any()
        assert sides[1].any()
        assert sides[-2].any()
        assert not sides[-1].any()


PIXELS = arrays.arrays(np.bool_, (4, 8, 9), elements=st.booleans())
MARGINS = st.floats(0.5, 6.0)
SMALL = SeriesGeometry.axial((4, 8, 9), (2.5, 1.0, 1.5))


def small(voxels: Any) -> RoiMask:
    return RoiMask.from_volume("Any", voxels)


@settings(max_examples=40, deadline=None)
@given(voxels=PIXELS, first_mm=MARGINS, second_mm=MARGINS)
def test_a_larger_margin_holds_the_smaller_one(voxels: Any, first_mm: float, second_mm: float) -> None:
    less, more = sorted([first_mm, second_mm])
    sizes = [with_margin(small(voxels), SMALL, by).in_grid(SMALL.shape) for by in (-more, -less, 0.0, less, more)]
    for inner, outer in pairwise(sizes):
        assert not (inner & ~outer).any()


@settings(max_examples=40, deadline=None)
@given(voxels=PIXELS, first_mm=st.floats(-6.0, 6.0), second_mm=st.floats(-6.0, 6.0))
def test_a_ring_is_one_margin_less_another(voxels: Any, first_mm: float, second_mm: float) -> None:
    inner_mm, outer_mm = sorted([first_mm, second_mm])
    inner, outer = (with_margin(small(voxels), SMALL, by).in_grid(SMALL.shape) for by in (inner_mm, outer_mm))
    between = ring(small(voxels), SMALL, inner_mm, outer_mm).in_grid(SMALL.shape)
    assert np.array_equal(between, outer & ~inner)


@settings(max_examples=30, deadline=None)
@given(voxels=PIXELS, sides=st.lists(st.floats(0.0, 5.0), min_size=6, max_size=6))
def test_a_six_way_margin_lies_between_its_least_and_its_greatest(voxels: Any, sides: list[float]) -> None:
    margin = SixWayMargin(**dict(zip(SixWayMargin.model_fields, sides, strict=True)))
    least, own, greatest = (
        with_margin(small(voxels), SMALL, by).in_grid(SMALL.shape) for by in (min(sides), margin, max(sides))
    )
    assert not (least & ~own).any()
    assert not (own & ~greatest).any()
