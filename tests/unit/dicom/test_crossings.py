"""Contours that cross themselves are found as by comparing every edge with every other, but sooner."""

from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from appliance.dicom.contour_points import ContourPoints
from appliance.dicom.rules.crossings import crossings

Corner = tuple[int, int]
corners = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=3, max_size=24)


def points_of(*polygons: list[Corner], spacing_mm: float = 10.0) -> ContourPoints:
    flat = np.array([corner for polygon in polygons for corner in polygon], dtype=float).reshape(-1, 2)
    points_mm = np.c_[flat * spacing_mm, np.full(len(flat), -812.5)]
    return ContourPoints(points_mm, np.array([len(polygon) for polygon in polygons], np.intp), {})


def side(a: Corner, b: Corner, c: Corner) -> int:
    return int(np.sign((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])))


def crosses_itself(polygon: list[Corner]) -> bool:
    edges = list(zip(polygon, [*polygon[1:], polygon[0]], strict=True))
    return any(
        side(*one, other[0]) * side(*one, other[1]) < 0 and side(*other, one[0]) * side(*other, one[1]) < 0
        for one, other in combinations(edges, 2)
    )


@given(polygons=st.lists(corners, min_size=1, max_size=4))
def test_crossings_are_those_that_comparing_every_pair_finds(polygons: list[list[Corner]]) -> None:
    found, complete = crossings(points_of(*polygons))
    assert complete
    assert found.tolist() == [index for index, polygon in enumerate(polygons) if crosses_itself(polygon)]


def test_one_crossing_among_thousands_of_edges_is_found_by_its_contour() -> None:
    angles = np.linspace(0, 2 * np.pi, 4000, endpoint=False)
    circle = np.c_[150 * np.cos(angles), 150 * np.sin(angles)]
    crossed = circle.copy()
    crossed[[1000, 2000]] = crossed[[2000, 1000]]
    both = ContourPoints(np.c_[np.concatenate([circle, crossed]), np.zeros(8000)], np.array([4000, 4000]), {})
    assert crossings(both)[0].tolist() == [1]


def test_points_that_lie_too_dense_are_said_to_be_so() -> None:
    knot = np.random.default_rng(0).random((3000, 2)) * 0.01
    points = ContourPoints(np.c_[knot, np.zeros(3000)], np.array([3000]), {})
    assert crossings(points)[1] is False


def test_nothing_crosses_nothing() -> None:
    for polygons in ([], [[]], [[(0, 0)]], [[(1, 1)] * 9]):
        assert crossings(points_of(*polygons))[0].size == 0
