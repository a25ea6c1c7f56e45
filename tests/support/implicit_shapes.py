"""Solid shapes in the patient as functions of position: below zero inside, near the surface about the distance in mm.

Shapes are joined with `|`, cut with `&` and taken away with `-`. Positions are x, y and z in mm, arrays that
broadcast against each other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Field = Callable[[Floats, Floats, Floats], Floats]
Point = Sequence[float]

_STEP_MM = 1e-3
_NO_LENGTH = 1e-9


@dataclass(frozen=True, eq=False)
class Shape:
    """A solid.

    Attributes:
        field: the function of x, y and z.
        low_mm: least x, y and z of the box that holds it; may be infinite.
        high_mm: greatest x, y and z.
    """

    field: Field
    low_mm: tuple[float, ...]
    high_mm: tuple[float, ...]

    def __or__(self, other: "Shape") -> "Shape":
        low_mm, high_mm = map(min, self.low_mm, other.low_mm), map(max, self.high_mm, other.high_mm)
        return Shape(lambda x, y, z: np.minimum(self.field(x, y, z), other.field(x, y, z)), (*low_mm,), (*high_mm,))

    def __and__(self, other: "Shape") -> "Shape":
        low_mm, high_mm = map(max, self.low_mm, other.low_mm), map(min, self.high_mm, other.high_mm)
        return Shape(lambda x, y, z: np.maximum(self.field(x, y, z), other.field(x, y, z)), (*low_mm,), (*high_mm,))

    def __sub__(self, other: "Shape") -> "Shape":
        return Shape(lambda x, y, z: np.maximum(self.field(x, y, z), -other.field(x, y, z)), self.low_mm, self.high_mm)

    def shrunk(self, by_mm: float) -> "Shape":
        """Return the shape without a layer of about this thickness."""
        return Shape(lambda x, y, z: self.field(x, y, z) + by_mm, self.low_mm, self.high_mm)

    def distance_mm(self, points_mm: Floats) -> Floats:
        """Return how far positions, shape (N, 3), lie off the surface, below zero inside: f / |grad f|."""
        centred = self.field(*points_mm.T)
        slopes = []
        for axis in range(3):
            beside_mm = np.zeros(3)
            beside_mm[axis] = _STEP_MM
            change = self.field(*(points_mm + beside_mm).T) - self.field(*(points_mm - beside_mm).T)
            slopes.append(change / (2 * _STEP_MM))
        return np.asarray(centred / np.maximum(np.linalg.norm(slopes, axis=0), _NO_LENGTH))


def ellipsoid(centre_mm: Point, radii_mm: Point) -> Shape:
    """Return an ellipsoid along the axes; an infinite radius makes a cylinder."""
    least_mm = min(radii_mm)

    def field(x: Floats, y: Floats, z: Floats) -> Floats:
        parts = [(here - middle) / radius for here, middle, radius in zip((x, y, z), centre_mm, radii_mm, strict=True)]
        reach = np.sqrt(parts[0] ** 2 + parts[1] ** 2 + parts[2] ** 2)
        slope = np.sqrt(sum((part / radius) ** 2 for part, radius in zip(parts, radii_mm, strict=True)))
        return np.asarray((reach - 1.0) * (reach + _NO_LENGTH) / (slope + _NO_LENGTH / least_mm))

    return Shape(field, *_around(centre_mm, radii_mm))


def ball(centre_mm: Point, radius_mm: float) -> Shape:
    """Return a ball."""
    return ellipsoid(centre_mm, (radius_mm,) * 3)


def block(centre_mm: Point, halves_mm: Point) -> Shape:
    """Return a block along the axes with half its length, width and height; a half may be infinite."""

    def field(x: Floats, y: Floats, z: Floats) -> Floats:
        parts = [
            np.abs(here - middle) - half for here, middle, half in zip((x, y, z), centre_mm, halves_mm, strict=True)
        ]
        outside = np.sqrt(sum(np.maximum(part, 0.0) ** 2 for part in parts))
        within = np.maximum(np.maximum(parts[0], parts[1]), parts[2])
        return np.asarray(outside + np.minimum(within, 0.0))

    return Shape(field, *_around(centre_mm, halves_mm))


def tube(course_mm: Sequence[Point], radius_mm: float) -> Shape:
    """Return all that lies within a radius of a line through some positions."""
    starts, ends = np.array(course_mm[:-1], dtype=np.float64), np.array(course_mm[1:], dtype=np.float64)

    def field(x: Floats, y: Floats, z: Floats) -> Floats:
        lines = (_from_line_mm((x, y, z), start, end) for start, end in zip(starts, ends, strict=True))
        nearest_mm = next(lines)
        for distance_mm in lines:
            nearest_mm = np.minimum(nearest_mm, distance_mm)
        return np.asarray(nearest_mm - radius_mm)

    corners = np.array(course_mm, dtype=np.float64)
    return Shape(field, (*(corners.min(axis=0) - radius_mm).tolist(),), (*(corners.max(axis=0) + radius_mm).tolist(),))


def turned(shape: Shape, degrees: float) -> Shape:
    """Turn a shape with a finite box about the z axis through the middle of its box."""
    middle = (np.array(shape.low_mm) + np.array(shape.high_mm)) / 2.0
    half = (np.array(shape.high_mm) - np.array(shape.low_mm)) / 2.0
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    reach = np.array([np.hypot(half[0], half[1])] * 2 + [half[2]])

    def field(x: Floats, y: Floats, z: Floats) -> Floats:
        across, down = x - middle[0], y - middle[1]
        return shape.field(middle[0] + cosine * across + sine * down, middle[1] + cosine * down - sine * across, z)

    return Shape(field, (*(middle - reach).tolist(),), (*(middle + reach).tolist(),))


def all_of(shapes: Sequence[Shape]) -> Shape:
    """Join shapes into one of several parts."""
    joined = shapes[0]
    for shape in shapes[1:]:
        joined |= shape
    return joined


def _around(centre_mm: Point, reach_mm: Point) -> tuple[tuple[float, ...], tuple[float, ...]]:
    low_mm = tuple(middle - reach for middle, reach in zip(centre_mm, reach_mm, strict=True))
    return low_mm, tuple(middle + reach for middle, reach in zip(centre_mm, reach_mm, strict=True))


def _from_line_mm(position: tuple[Floats, Floats, Floats], start: Floats, end: Floats) -> Floats:
    """Return the distance of positions from a straight line between two ends."""
    direction = end - start
    offsets = [here - first for here, first in zip(position, start, strict=True)]
    part = sum(offset * step for offset, step in zip(offsets, direction, strict=True)) / (direction @ direction)
    part = np.clip(part, 0.0, 1.0)
    gaps = [offset - part * step for offset, step in zip(offsets, direction, strict=True)]
    return np.sqrt(gaps[0] ** 2 + gaps[1] ** 2 + gaps[2] ** 2)
