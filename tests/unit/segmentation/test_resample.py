from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import SimpleITK
from scipy import ndimage

from appliance.dicom.ct_volume import CtVolume
from appliance.dicom.geometry import SeriesGeometry
from appliance.segmentation.arrays import Arrays, host_arrays
from appliance.segmentation.preprocess import to_working_grid
from appliance.segmentation.resample import (
    AxisMap,
    area_weights,
    cubic_weights,
    linear_weights,
    nearest_weights,
    separate_axis,
    used_sources,
)
from tests.support.array_libraries import ARRAY_LIBRARIES
from tests.support.model_packages import manifest_of_classes

CT_MM = np.arange(100) * 0.977 + 3.1
WORKING_MM = np.arange(22) * 4.0 + 9.7


@pytest.mark.parametrize("weights", [linear_weights(CT_MM, WORKING_MM), area_weights(CT_MM, WORKING_MM, 4.0)])
def test_a_linear_ramp_keeps_its_value_at_every_position(weights: np.ndarray) -> None:
    assert np.allclose(weights @ CT_MM, WORKING_MM, atol=1e-9)


@pytest.mark.parametrize("spacing_mm", [0.5, 0.977, 3.0, 4.0, 7.5])
def test_a_constant_stays_constant_even_beyond_the_ends(spacing_mm: float) -> None:
    target_mm = np.arange(-20.0, 130.0, spacing_mm)
    for weights in (linear_weights(CT_MM, target_mm), area_weights(CT_MM, target_mm, spacing_mm)):
        assert np.allclose(weights.sum(axis=1), 1.0)
        assert weights.min() >= 0.0


def test_voxels_at_the_same_places_are_taken_over_unchanged() -> None:
    assert np.allclose(linear_weights(CT_MM, CT_MM), np.eye(100), atol=1e-9)
    assert np.allclose(area_weights(CT_MM, CT_MM, 0.977), np.eye(100), atol=1e-9)


def test_beyond_the_ends_the_outermost_value_holds() -> None:
    assert linear_weights(CT_MM, np.array([-5.0, 500.0])) @ CT_MM == pytest.approx([CT_MM[0], CT_MM[-1]])


def test_one_slice_alone_is_spread_over_all_targets() -> None:
    assert (linear_weights(np.array([5.0]), WORKING_MM) == 1.0).all()


def test_noise_of_a_fine_ct_is_averaged_out_rather_than_aliased() -> None:
    kept = (area_weights(CT_MM, WORKING_MM, 4.0) ** 2).sum(axis=1)
    assert kept.max() < 1.15 * 0.977 / 4.0  # about four independent voxels average into one


def test_a_ct_as_coarse_as_the_target_is_only_interpolated() -> None:
    thick_mm = np.arange(20) * 5.0
    assert np.array_equal(area_weights(thick_mm, WORKING_MM, 4.0), linear_weights(thick_mm, WORKING_MM))


def test_only_sources_with_weight_are_used() -> None:
    assert used_sources(linear_weights(np.arange(10.0), np.array([3.5, 5.25]))) == slice(3, 7)


@pytest.mark.parametrize(("sources", "targets"), [(20, 33), (33, 20), (12, 12), (7, 30)])
def test_splines_are_scipys_with_the_half_pixel_convention(sources: int, targets: int) -> None:
    values = np.random.default_rng(0).normal(size=(sources, 9, 11))
    factors = (targets / sources, 14 / 9, 8 / 11)
    expected = ndimage.zoom(values, factors, order=3, mode="nearest", grid_mode=True)
    over_z, over_y, over_x = (_between_ends(*sizes) for sizes in ((sources, targets), (9, 14), (11, 8)))
    ours = np.einsum("zyx,kz,jy,ix->kji", values, over_z, over_y, over_x)
    assert np.allclose(ours, expected, atol=1e-9)


def _between_ends(sources: int, targets: int) -> Any:
    """Splines between two grids that fill the same length."""
    return cubic_weights(np.arange(sources) + 0.5, (np.arange(targets) + 0.5) * sources / targets)


@pytest.mark.parametrize(
    ("spacing_mm", "other_mm", "axis"),
    [
        ((5.0, 1.0, 1.0), (1.5, 1.5, 1.5), 0),
        ((1.0, 1.0, 1.0), (2.0, 2.0, 6.5), 2),
        ((3.0, 1.0, 1.0), (1.5, 1.5, 1.5), None),
        ((1.0, 4.0, 4.0), (1.5, 1.5, 1.5), None),
    ],
)
def test_one_axis_far_coarser_than_the_others_is_resampled_apart(
    spacing_mm: tuple[float, ...], other_mm: tuple[float, ...], axis: int | None
) -> None:
    assert separate_axis(spacing_mm, other_mm) == axis


@pytest.mark.parametrize(("ties_up", "taken"), [(True, [1, 3]), (False, [0, 2])])
def test_of_two_nearest_voxels_the_side_decides(ties_up: bool, taken: list[int]) -> None:
    weights = nearest_weights(np.arange(4.0), np.array([0.5, 2.5 - 1e-9]), ties_up=ties_up)
    assert weights.argmax(axis=1).tolist() == taken
    assert weights.sum() == 2


@pytest.mark.parametrize("arrays", ARRAY_LIBRARIES)
@pytest.mark.parametrize("targets", [slice(0, 200), slice(63, 65), slice(17, 130), slice(199, 200)])
def test_an_axis_in_blocks_is_the_same_product(arrays: Callable[[], Arrays], targets: slice) -> None:
    here = arrays()
    weights = linear_weights(np.arange(90) * 1.5, np.arange(200) * 0.7 - 2)
    axis = AxisMap(weights, here)
    values = np.random.default_rng(1).normal(size=(3, 90, 90)).astype(np.float32)
    used = axis.sources(targets)
    rows = axis.along_rows(here.array(values[:, used]), targets, used.start, here)
    columns = axis.along_columns(here.array(values[:, :, used]), targets, used.start, here)
    assert np.allclose(np.asarray(rows), np.einsum("nyx,jy->njx", values, weights[targets]), atol=1e-5)
    assert np.allclose(np.asarray(columns), np.einsum("nyx,ix->nyi", values, weights[targets]), atol=1e-5)


def an_image(values: Any, spacing_mm: tuple[float, ...], first_mm: tuple[float, ...]) -> SimpleITK.Image:
    """The same voxels as SimpleITK holds them: (z, y, x) values; spacing and first voxel centre are (x, y, z)."""
    image = SimpleITK.GetImageFromArray(values.astype(np.float32))
    image.SetSpacing(spacing_mm)
    image.SetOrigin(first_mm)
    return image


def test_the_working_grid_is_where_simpleitk_says_it_is_and_so_is_the_way_back() -> None:
    """No half voxel is lost either way: to the network's grid, and from there to the CT."""
    rng = np.random.default_rng(3)
    smooth = ndimage.gaussian_filter(rng.normal(size=(24, 40, 44)), 2.0) * 4000
    geometry = SeriesGeometry.axial(smooth.shape, (5.0, 4.1, 4.3), (-80.0, -90.0, 33.0))
    volume = CtVolume(np.rint(smooth).astype(np.int16), geometry)
    wanted = manifest_of_classes(2).input.model_copy(update={"spacing_mm": (3.0, 2.0, 2.5), "crop": "whole"})
    working = to_working_grid(volume, wanted)
    first_mm = [-80.0, -90.0, 33.0]
    z_mm, y_mm, x_mm = working.grid.centres_mm  # rows and columns from the first voxel, slices along the normal
    there_mm = (first_mm[0] + x_mm[0], first_mm[1] + y_mm[0], float(z_mm[0]))
    ct = an_image(volume.hu, (4.3, 4.1, 5.0), (-80.0, -90.0, float(working.grid.ct_centres_mm[0][0])))
    grid = an_image(np.zeros(working.grid.shape), (2.5, 2.0, 3.0), there_mm)
    expected = SimpleITK.GetArrayFromImage(SimpleITK.Resample(ct, grid, interpolator=SimpleITK.sitkLinear))
    inner = (slice(3, -3),) * 3  # outside the CT SimpleITK has zeros, and we go on with the last value
    assert np.abs(working.values[inner] - expected[inner]).max() < 0.1

    here = host_arrays()
    maps = [
        AxisMap(linear_weights(centres, ct_centres), here)
        for centres, ct_centres in zip(working.grid.centres_mm, working.grid.ct_centres_mm, strict=True)
    ]
    slices, rows, columns = (slice(0, length) for length in volume.hu.shape)
    over_z = maps[0].along_rows(working.values.reshape(1, len(z_mm), -1), slices, 0, here)
    over_y = maps[1].along_rows(over_z.reshape(-1, len(y_mm), len(x_mm)), rows, 0, here)
    back = maps[2].along_columns(over_y, columns, 0, here)
    finer = an_image(working.values, (2.5, 2.0, 3.0), there_mm)
    expected = SimpleITK.GetArrayFromImage(SimpleITK.Resample(finer, ct, interpolator=SimpleITK.sitkLinear))
    assert np.abs(back[inner] - expected[inner]).max() < 0.1
