import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.dicom.geometry import Plane, SeriesGeometry
from tests.support.ct_files import ORIENTATIONS

indices = st.lists(st.tuples(st.floats(-600, 600), st.floats(-600, 600)), min_size=1, max_size=20)


def plane_of(position: str) -> Plane:
    a, b, c, d, e, f = (float(cosine) for cosine in ORIENTATIONS[position])
    return Plane((10.0, -20.0, 30.0), (a, b, c), (d, e, f), (0.9, 1.3))


def test_a_column_step_follows_the_row_direction_by_the_second_spacing() -> None:
    plane = Plane((10.0, 20.0, 30.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.9, 1.3))
    np.testing.assert_allclose(plane.to_patient_mm([(1, 0), (0, 1)]), [(11.3, 20, 30), (10, 20.9, 30)])


@pytest.mark.parametrize("position", ORIENTATIONS)
@given(points=indices)
def test_pixels_survive_the_way_into_the_patient_and_back(position: str, points: list[tuple[float, float]]) -> None:
    plane = plane_of(position)
    positions_mm = plane.to_patient_mm(points)
    np.testing.assert_allclose(plane.to_pixels(positions_mm), points, atol=1e-9)


def test_an_axial_grid_has_its_spacing_shape_and_planes() -> None:
    grid = SeriesGeometry.axial((5, 6, 8), (3.0, 0.9, 1.3), (1.0, 2.0, 3.0))
    assert grid.shape == (5, 6, 8)
    assert grid.spacing_mm == (3.0, 0.9, 1.3)
    np.testing.assert_allclose(grid.slice_thickness_mm, [3.0] * 5)
    assert grid.plane(4).origin_mm == (1.0, 2.0, 15.0)
    np.testing.assert_array_equal(grid.directions, [(0, 0, 1), (0, 1, 0), (1, 0, 0)])


def test_each_slice_keeps_its_own_position() -> None:
    positions_mm = [(0, 0, 0), (0.02, 0, 3.01), (0, 0.01, 5.99)]
    grid = SeriesGeometry(np.array(positions_mm), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (1.0, 1.0), 4, 4)
    corner = grid.to_patient_mm([0, 1, 2], np.zeros((3, 2)))
    np.testing.assert_array_equal(corner, positions_mm)


def test_the_positions_of_a_geometry_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        SeriesGeometry.axial((2, 2, 2), (1.0, 1.0, 1.0)).positions_mm[0, 0] = 5.0


def test_a_slice_is_as_thick_as_half_the_gaps_on_its_two_sides() -> None:
    positions_mm = [(0, 0, 0), (0, 0, 2), (0, 0, 4), (0, 0, 10)]
    grid = SeriesGeometry(np.array(positions_mm), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (1.0, 1.0), 4, 4)
    np.testing.assert_allclose(grid.slice_thickness_mm, [2.0, 2.0, 4.0, 6.0])


def test_the_slices_of_a_tilted_gantry_are_shifted_in_their_own_planes() -> None:
    turn = np.radians(15)
    down = (0.0, float(np.cos(turn)), float(-np.sin(turn)))
    grid = SeriesGeometry(np.array([(0, 0, 0), (0, 0, 5)]), (1.0, 0.0, 0.0), down, (1.0, 1.0), 4, 4)
    np.testing.assert_allclose(grid.shear, [(0, 0), (-5 * np.sin(turn), 0)])
    assert grid.slice_gap_mm == pytest.approx(5 * np.cos(turn))
