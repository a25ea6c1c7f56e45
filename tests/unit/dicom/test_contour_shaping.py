"""Contours may be smoothed, simplified and drawn between voxels, and still hold the same voxels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from appliance.dicom.contour_points import ContourPoints
from appliance.dicom.contour_shaping import smooth
from appliance.dicom.contour_tracing import trace_loops
from appliance.dicom.contours import Drawing, RoiContours, trace
from appliance.dicom.geometry import SeriesGeometry
from appliance.dicom.rasterising import rasterise
from appliance.dicom.roi import RoiMask
from appliance.dicom.rules.crossings import crossings

Mask = NDArray[np.bool_]
masks = arrays(np.bool_, array_shapes(min_dims=3, max_dims=3, max_side=9))
drawings = st.builds(
    Drawing,
    keyhole=st.booleans(),
    smooth_mm=st.sampled_from([0.0, 0.1, 2.0]),
    simplify_mm=st.sampled_from([0.0, 0.05, 2.0]),
    max_points=st.sampled_from([None, 50]),
)


def grid(shape: tuple[int, ...]) -> SeriesGeometry:
    return SeriesGeometry.axial((shape[0], shape[1], shape[2]), (3.0, 0.9, 1.3), (-185.044, -311.319, -812.0))


def ball(*, probabilities: bool = False, radius: float = 11.3) -> RoiMask:
    z, y, x = np.mgrid[:5, :32, :32] - np.array([2.0, 15.4, 15.7])[:, np.newaxis, np.newaxis, np.newaxis]
    distance = np.sqrt(x**2 + y**2 + z**2) - radius
    if probabilities:
        return RoiMask.from_probabilities("Ball", np.clip(0.5 - distance / 4, 0, 1))
    return RoiMask.from_volume("Ball", distance < 0)


def points_of(contours: RoiContours) -> NDArray[np.float64]:
    return np.concatenate([contour.points_mm for contour in contours.contours])


@settings(max_examples=200)
@given(voxels=masks, drawing=drawings)
def test_no_smoothing_or_simplifying_lets_a_voxel_change_sides(voxels: Mask, drawing: Drawing) -> None:
    contours = trace(RoiMask.from_volume("Test", voxels), grid(voxels.shape), drawing)
    np.testing.assert_array_equal(rasterise(contours, grid(voxels.shape)).in_grid(voxels.shape), voxels)
    assert all(len(contour.points_mm) >= 4 for contour in contours.contours)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("drawing", [Drawing(simplify_mm=2.0), Drawing(smooth_mm=2.0, simplify_mm=2.0, keyhole=True)])
def test_however_certain_its_voxels_are_a_region_keeps_them_and_no_contour_crosses_itself(
    seed: int, drawing: Drawing
) -> None:
    """On large blurred noise, whose contours are long and come close to each other."""
    noise = np.random.default_rng(seed).random((3, 40, 50))
    for axis in (1, 2):
        noise = (noise + np.roll(noise, 1, axis) + np.roll(noise, -1, axis)) / 3
    mask = RoiMask.from_probabilities("Test", np.clip(0.5 + 2 * (noise - noise.mean()), 0, 1))
    contours = trace(mask, grid(noise.shape), drawing)
    np.testing.assert_array_equal(
        rasterise(contours, grid(noise.shape)).in_grid(noise.shape), mask.in_grid(noise.shape)
    )
    lengths = np.array([len(one.points_mm) for one in contours.contours])
    assert len(points_of(contours)) < 0.8 * len(points_of(trace(mask, grid(noise.shape))))
    crossing, complete = crossings(ContourPoints(points_of(contours), lengths, {}))
    assert complete
    assert not crossing.size


@settings(max_examples=50)
@given(probabilities=arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, max_side=7)))
def test_probabilities_as_bytes_and_as_fractions_give_one_region(probabilities: NDArray[np.uint8]) -> None:
    as_bytes = RoiMask.from_probabilities("Test", probabilities)
    as_fractions = RoiMask.from_probabilities("Test", probabilities / np.float64(255))
    np.testing.assert_array_equal(as_bytes.in_grid(probabilities.shape), probabilities > 127)
    np.testing.assert_array_equal(as_bytes.voxels, as_fractions.voxels)
    np.testing.assert_array_equal(as_bytes.certainty, as_fractions.certainty)


def test_probabilities_put_the_contour_on_the_surface_and_masks_cannot() -> None:
    geometry = SeriesGeometry.axial((5, 32, 32), (1.0, 1.0, 1.0))

    def error_mm(mask: RoiMask) -> float:
        off = points_of(trace(mask, geometry)) - np.array([15.7, 15.4, 2.0])
        return float(np.abs(np.linalg.norm(off, axis=1) - 11.3).mean())

    assert error_mm(ball(probabilities=True)) < 0.015
    assert error_mm(ball()) > 0.1


def test_two_organs_that_touch_share_their_boundary() -> None:
    certainty = np.random.default_rng(1).integers(1, 256, (1, 6, 8)).astype(np.uint8)
    left = np.zeros((1, 6, 8), np.bool_)
    left[:, 1:5, 1:4] = True
    right = np.zeros_like(left)
    right[:, 1:5, 4:7] = True
    points = [
        {tuple(point) for point in points_of(trace(one.with_certainty(certainty), grid(left.shape))).round(6).tolist()}
        for one in (RoiMask.from_volume("Left", left), RoiMask.from_volume("Right", right))
    ]
    assert len(points[0] & points[1]) == 4


def test_a_contour_at_the_border_of_the_image_lies_half_a_pixel_outside() -> None:
    certainty = np.full((1, 4, 4), 200, np.uint8)
    mask = RoiMask.from_volume("All", np.ones((1, 4, 4), np.bool_)).with_certainty(certainty)
    points = points_of(trace(mask, SeriesGeometry.axial((1, 4, 4), (1.0, 1.0, 1.0))))
    assert points[:, :2].min() == -0.5
    assert points[:, :2].max() == 3.5


@settings(max_examples=50)
@given(voxels=masks, limit=st.floats(0.01, 2.0), keyhole=st.booleans())
def test_smoothing_moves_no_point_farther_than_it_is_told_nor_past_a_voxel(
    voxels: Mask, limit: float, keyhole: bool
) -> None:
    loops = trace_loops(voxels, None, keyhole=keyhole)
    smoothed = smooth(loops, limit)
    moved = np.abs(smoothed.points - loops.points)
    assert moved.max(initial=0.0) <= limit + 1e-12
    assert (moved.min(axis=1, initial=9.0) == 0.0).all()
    assert np.array_equal(np.floor(smoothed.points), np.floor(loops.points))
    assert not moved[loops.fixed].any()


def test_smoothing_takes_the_steps_out_of_a_mask() -> None:
    geometry = SeriesGeometry.axial((5, 32, 32), (1.0, 1.0, 1.0))

    def roughness(drawing: Drawing) -> float:
        contour = trace(ball(), geometry, drawing).contours[2]
        steps = np.roll(contour.points_mm, -1, axis=0) - contour.points_mm
        turns = np.arctan2(*(np.roll(steps, -1, axis=0)[:, 1::-1].T)) - np.arctan2(*(steps[:, 1::-1].T))
        return float(np.abs((turns + np.pi) % (2 * np.pi) - np.pi).sum())

    assert roughness(Drawing(smooth_mm=1.0)) < 0.7 * roughness(Drawing())


def test_simplifying_leaves_out_most_points_and_moves_the_contour_less_than_it_is_told() -> None:
    geometry = SeriesGeometry.axial((5, 32, 32), (1.0, 1.0, 1.0))
    plain = trace(ball(probabilities=True, radius=14.0), geometry).contours[2].points_mm
    simple = trace(ball(probabilities=True, radius=14.0), geometry, Drawing(simplify_mm=0.1)).contours[2].points_mm
    assert len(simple) < 0.5 * len(plain)
    starts, ends = simple, np.roll(simple, -1, axis=0)
    along = ends - starts
    share = ((plain[:, np.newaxis] - starts) * along).sum(axis=2) / (along**2).sum(axis=1)
    nearest = starts + share.clip(0, 1)[..., np.newaxis] * along
    distances = np.linalg.norm(plain[:, np.newaxis] - nearest, axis=2).min(axis=1)
    assert distances.max() <= 0.1 + 1e-9


def test_a_contour_with_too_many_points_is_simplified_until_it_fits() -> None:
    geometry = SeriesGeometry.axial((5, 32, 32), (1.0, 1.0, 1.0))
    mask = ball(probabilities=True, radius=14.0)
    most = max(len(contour.points_mm) for contour in trace(mask, geometry).contours)
    assert most > 44
    assert all(len(one.points_mm) <= 44 for one in trace(mask, geometry, Drawing(max_points=44)).contours)
