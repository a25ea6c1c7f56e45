import numpy as np
import pytest

from appliance.dicom.geometry import SeriesGeometry
from appliance.errors import Reason, SeriesRefused
from appliance.segmentation.working_grid import WorkingGrid
from tests.support.ct_volumes import PATIENT_POSITIONS, series_grid, voxel_centres_mm


@pytest.mark.parametrize("position", PATIENT_POSITIONS)
def test_the_networks_indices_grow_to_the_head_the_back_and_the_left(position: str) -> None:
    geometry = series_grid(position, (5, 6, 7), (4.0, 4.0, 4.0))
    grid = WorkingGrid.over(geometry, (4.0, 4.0, 4.0))
    for axis, patient_axis in enumerate((2, 1, 0)):
        along_mm = grid.to_network(voxel_centres_mm(geometry)[..., patient_axis], np)
        assert np.allclose(np.diff(along_mm, axis=axis), 4.0)


@pytest.mark.parametrize("position", PATIENT_POSITIONS)
def test_going_to_the_networks_axes_and_back_changes_nothing(position: str) -> None:
    grid = WorkingGrid.over(series_grid(position, (5, 6, 7), (4.0, 4.0, 4.0)), (4.0, 4.0, 4.0))
    array = np.random.default_rng(1).random((3, 5, 6, 7), np.float32)
    assert np.array_equal(grid.to_series(grid.to_network(array, np), np), array)


@pytest.mark.parametrize("position", PATIENT_POSITIONS)
@pytest.mark.parametrize("orientation", ["RAS", "LAI", "RPS"])
def test_a_network_of_another_orientation_sees_its_own(position: str, orientation: str) -> None:
    geometry = series_grid(position, (5, 6, 7), (4.0, 4.0, 4.0))
    grid = WorkingGrid.over(geometry, (4.0, 4.0, 4.0), orientation)
    for axis, (patient_axis, letter) in enumerate(zip((2, 1, 0), reversed(orientation), strict=True)):
        along_mm = grid.to_network(voxel_centres_mm(geometry)[..., patient_axis], np)
        assert np.allclose(np.diff(along_mm, axis=axis), 4.0 if letter in "LPS" else -4.0)
    along_left = geometry.directions[grid.left_right_axis][0]
    assert grid.left_is_descending == (along_left < 0)


def test_a_grid_that_fills_the_scan_ends_where_the_scan_ends() -> None:
    geometry = series_grid("HFS", (10, 50, 64), (2.5, 0.9, 0.7))
    grid = WorkingGrid.over(geometry, (4.0, 3.0, 2.0), fill=True)
    assert grid.shape == (6, 15, 22)
    for centres, ct_centres in zip(grid.centres_mm, grid.ct_centres_mm, strict=True):
        ends_mm = [(one[0] - (one[1] - one[0]) / 2, one[-1] + (one[1] - one[0]) / 2) for one in (centres, ct_centres)]
        assert ends_mm[0] == pytest.approx(ends_mm[1])


def test_the_grid_is_centred_and_covers_every_ct_voxel() -> None:
    grid = WorkingGrid.over(series_grid("HFS", (10, 50, 64), (2.5, 0.9, 0.7)), (4.0, 3.0, 2.0))
    for centres, ct_centres, spacing_mm in zip(grid.centres_mm, grid.ct_centres_mm, (4, 3, 2), strict=True):
        assert np.allclose(np.diff(centres), spacing_mm)
        assert centres.mean() == pytest.approx(ct_centres.mean())
        assert centres[0] - spacing_mm / 2 <= ct_centres[0]
        assert centres[-1] + spacing_mm / 2 >= ct_centres[-1]


def test_spacing_belongs_to_the_patients_axes_not_to_the_series() -> None:
    grid = WorkingGrid.over(series_grid("HFDR", (10, 50, 64), (2.5, 0.9, 0.7)), (4.0, 3.0, 2.0))
    assert [round(float(np.diff(centres)[0]), 6) for centres in grid.centres_mm] == [4.0, 2.0, 3.0]
    assert [round(float(np.diff(centres)[0]), 6) for centres in grid.ct_centres_mm] == [2.5, 0.9, 0.7]


def test_slices_lie_where_each_one_says() -> None:
    regular = series_grid("FFS", (4, 5, 5), (2.5, 1.0, 1.0))
    positions_mm = regular.positions_mm.copy()
    positions_mm[2, 2] -= 0.02  # feet first: later slices lie lower
    uneven = SeriesGeometry(
        positions_mm, regular.row_direction, regular.column_direction, (1.0, 1.0), regular.rows, regular.columns
    )
    slices_mm = WorkingGrid.over(uneven, (4.0, 4.0, 4.0)).ct_centres_mm[0]
    assert np.diff(slices_mm) == pytest.approx([2.5, 2.52, 2.48])


def test_images_turned_far_from_the_patients_axes_are_refused() -> None:
    cosine, sine = np.cos(np.radians(30.0)), np.sin(np.radians(30.0))
    regular = series_grid("HFS", (4, 5, 5), (2.5, 1.0, 1.0))
    turned = SeriesGeometry(
        regular.positions_mm, (cosine, sine, 0.0), (-sine, cosine, 0.0), (1.0, 1.0), regular.rows, regular.columns
    )
    with pytest.raises(SeriesRefused) as caught:
        WorkingGrid.over(turned, (4.0, 4.0, 4.0))
    assert caught.value.reason is Reason.ORIENTATION_UNSUPPORTED
    assert "30 degrees" in caught.value.sentence
