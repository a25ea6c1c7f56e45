"""Smoothing in millimetres: what stays where it is, what goes, and what is never invented."""

from typing import Any

import numpy as np
import pytest

from appliance.dicom.contours import trace
from appliance.dicom.geometry import SeriesGeometry
from appliance.dicom.rasterising import fill
from appliance.dicom.roi import RoiMask
from appliance.segmentation.smoothing import smoothed

SHAPE = (20, 40, 40)
SURE = np.full(SHAPE, 255, np.uint8)


def centres_mm(spacing_mm: tuple[float, float, float]) -> Any:
    return tuple(np.arange(count) * step for count, step in zip(SHAPE, spacing_mm, strict=True))


def ball(radius_mm: float, spacing_mm: tuple[float, float, float]) -> Any:
    away = [
        (axis - axis.mean())[(slice(None), *[None] * (2 - index))] ** 2
        for index, axis in enumerate(centres_mm(spacing_mm))
    ]
    return RoiMask.from_volume("Ball", sum(away) <= radius_mm**2)


def test_a_plane_stays_where_it_is_and_a_speck_goes() -> None:
    voxels = np.zeros(SHAPE, np.bool_)
    voxels[:, :20] = True
    voxels[10, 30, 30] = True
    made = smoothed(RoiMask.from_volume("Half", voxels), SURE, centres_mm((3.0, 1.0, 1.0)), 2.0)
    voxels[10, 30, 30] = False
    assert np.array_equal(made.in_grid(SHAPE), voxels)


def test_the_width_is_in_millimetres_along_every_axis() -> None:
    voxels = np.zeros(SHAPE, np.bool_)
    voxels[10, 10:30, 10:30] = True  # one slice: 1 mm thick, or 6 mm
    plate = RoiMask.from_volume("Plate", voxels)
    assert smoothed(plate, SURE, centres_mm((1.0, 1.0, 1.0)), 1.5).is_empty
    assert not smoothed(plate, SURE, centres_mm((6.0, 1.0, 1.0)), 1.5).is_empty


def test_slices_count_at_their_own_positions() -> None:
    voxels = np.zeros(SHAPE, np.bool_)
    voxels[10:12, 10:30, 10:30] = True
    even = centres_mm((1.0, 1.0, 1.0))
    spread = np.concatenate([np.arange(10), 10 + 6.0 * np.arange(10)])
    mask = RoiMask.from_volume("Plate", voxels)
    assert smoothed(mask, SURE, even, 2.0).is_empty
    kept = smoothed(mask, SURE, (spread, *even[1:]), 2.0).in_grid(SHAPE)
    assert kept[11].any()


def test_thin_slices_do_not_outweigh_thick_ones() -> None:
    slices_mm = np.concatenate([np.arange(15) * 0.5, 11 + 6.0 * np.arange(5)])
    voxels = np.zeros(SHAPE, np.bool_)
    voxels[15:, 5:35, 5:35] = True
    grid = (slices_mm, *centres_mm((1.0, 1.0, 1.0))[1:])
    made = smoothed(RoiMask.from_volume("Thick", voxels), SURE, grid, 4.0).in_grid(SHAPE)
    assert made[15, 20, 20]
    assert not made[14, 20, 20]


def test_what_the_scan_cuts_off_is_not_rounded_off_there() -> None:
    voxels = np.zeros(SHAPE, np.bool_)
    voxels[:, 10:30, 10:30] = True
    made = smoothed(RoiMask.from_volume("Bar", voxels), SURE, centres_mm((3.0, 1.0, 1.0)), 2.0).in_grid(SHAPE)
    assert np.array_equal(made[0], made[10])
    assert np.array_equal(made[19], made[10])


@pytest.mark.parametrize("spacing_mm", [(3.0, 1.0, 1.0), (2.0, 0.8, 0.8)])
def test_contours_of_a_smoothed_structure_still_hold_exactly_its_voxels(spacing_mm: Any) -> None:
    mask = smoothed(ball(11.0, spacing_mm), SURE, centres_mm(spacing_mm), 1.5)
    geometry = SeriesGeometry.axial(SHAPE, spacing_mm)
    contours = trace(mask, geometry).contours
    points, lengths = [one.points_mm for one in contours], [len(one.points_mm) for one in contours]
    slices = np.array([one.slice_index for one in contours])
    again = fill("Ball", np.concatenate(points), np.array(lengths), slices, geometry)
    assert np.array_equal(again.in_grid(SHAPE), mask.in_grid(SHAPE))
    middle_mm = [19.5 * spacing_mm[2], 19.5 * spacing_mm[1], 9.5 * spacing_mm[0]]
    off_mm = np.linalg.norm(np.concatenate(points) - middle_mm, axis=1)
    assert np.abs(off_mm - 11).mean() < 0.6, "the surface of a ball is smoother than its voxels"


def test_nothing_to_smooth_gives_the_same_back() -> None:
    mask = ball(8.0, (3.0, 1.0, 1.0))
    assert smoothed(mask, SURE, centres_mm((3.0, 1.0, 1.0)), 0.0) is mask
