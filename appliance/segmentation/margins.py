"""Margins and rings: regions grown, shrunk, or wrapped, in millimetres and directions of the patient.

A margin of r holds all points within r of the region; a negative one leaves out all points within r of what is
outside. A margin for each direction is measured by an ellipsoid of eight octants, each with the margins of its own
three directions; a margin of 0 leaves the surface where it is. Nothing grows beyond the grid. A region that the scan
cuts off is not shrunk from there, because nothing is known of what lies beyond.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from appliance.dicom.geometry import SeriesGeometry
from appliance.dicom.roi import RoiMask
from appliance.segmentation.distance import FINEST_UNIT_MM, DistanceField, Metric, Sides, signed_distances
from appliance.segmentation.oblique import carried, upright_grid
from appliance.segmentation.regions import SignedPlane, nothing, region, signed_certainty
from appliance.settings import SixWayMargin

ALIGNED = 0.02
"""Axes of the grid that leave those of the patient by no more than this (as the sine of the angle) count as theirs."""

ROUNDING = 1e-3
"""Voxels whose centres lie this little beyond a margin are within it: whichever way the numbers are rounded."""


class _Bounds(NamedTuple):
    """Between which distances a region lies: more than `low`, no more than `high`."""

    low: float
    high: float


def with_margin(mask: RoiMask, geometry: SeriesGeometry, margin_mm: float | SixWayMargin) -> RoiMask:
    """Grow a region by a margin, or shrink it by a negative one; it may become empty."""
    if isinstance(margin_mm, SixWayMargin):
        sides = np.array(_sides_of(margin_mm))
        if np.ptp(sides):
            return _six_way(mask, geometry, margin_mm)
        margin_mm = float(sides[0, 0])
    if margin_mm == 0.0 or mask.is_empty:
        return mask
    return _between(mask, geometry, _Bounds(-np.inf, margin_mm))


def ring(mask: RoiMask, geometry: SeriesGeometry, inner_mm: float, outer_mm: float) -> RoiMask:
    """Take what lies between two distances from a region's surface, outwards positive: one margin less another."""
    if mask.is_empty:
        return mask
    return _between(mask, geometry, _Bounds(inner_mm, outer_mm))


def _between(mask: RoiMask, geometry: SeriesGeometry, bounds: _Bounds) -> RoiMask:
    reach_mm = [bound for bound in bounds if np.isfinite(bound)]
    field = signed_distances(mask, geometry, max(0.0, -min(reach_mm)), max(0.0, *reach_mm))
    return _cut(mask.name, field, bounds, max(geometry.pixel_spacing_mm))


def _six_way(mask: RoiMask, geometry: SeriesGeometry, margin_mm: SixWayMargin) -> RoiMask:
    if mask.is_empty:
        return mask
    sides_mm = np.array(_sides_of(margin_mm))
    axes = _patient_axes(geometry)
    if axes is None:
        upright = upright_grid(mask, geometry, float(sides_mm.max(initial=0.0)))
        there = carried(mask, geometry, upright)
        return nothing(mask.name) if there.is_empty else carried(_six_way(there, upright, margin_mm), upright, geometry)
    z, y, x = (_ascending(np.abs(sides_mm[axis]).tolist(), descending=direction < 0) for axis, direction in axes)
    grows = sides_mm.max() > 0
    field = signed_distances(mask, geometry, 0.0 if grows else 1.0, 1.0 if grows else 0.0, Metric(z, y, x))
    pixel_mm = max(geometry.pixel_spacing_mm)
    unit_mm = min((side for side in (*y, *x) if side), default=FINEST_UNIT_MM)
    return _cut(mask.name, field, _Bounds(-np.inf, 1.0 if grows else -1.0), pixel_mm / unit_mm)


def _sides_of(margin_mm: SixWayMargin) -> tuple[Sides, Sides, Sides]:
    """The margins towards lower and higher coordinates along the patient's (x, y, z)."""
    return (
        (margin_mm.right, margin_mm.left),
        (margin_mm.anterior, margin_mm.posterior),
        (margin_mm.inferior, margin_mm.superior),
    )


def _patient_axes(geometry: SeriesGeometry) -> list[tuple[int, float]] | None:
    """For the grid's (z, y, x) the patient's axis along which it runs, 0 to 2, and -1 where backwards, else 1.

    None where slices are tilted against the patient, or shifted in a tilted stack.
    """
    directions = geometry.directions
    axes = np.abs(directions).argmax(axis=1)
    aside = np.abs(directions)
    aside[np.arange(3), axes] = 0.0
    if aside.max() > ALIGNED:
        return None
    return [(int(axis), float(np.sign(directions[row, axis]))) for row, axis in enumerate(axes)]


def _ascending(sides: list[float], *, descending: bool) -> Sides:
    low, high = sides[::-1] if descending else sides
    return low, high


def _cut(name: str, field: DistanceField, bounds: _Bounds, pixel: float) -> RoiMask:
    """Take the voxels between two distances; each is as sure of its side as it is far from the nearer one.

    Args:
        name: of the region.
        field: signed distances.
        bounds: the two distances.
        pixel: the distance at which a voxel is sure: neighbours never lie farther from a surface between them.
    """

    def planes() -> Iterator[SignedPlane]:
        for distance in field.planes:
            within: NDArray[np.float32] = np.float32(bounds.high + ROUNDING) - distance
            if np.isfinite(bounds.low):
                within = np.minimum(within, distance - np.float32(bounds.low + ROUNDING))
            yield signed_certainty(within > 0, np.abs(within) * np.float32(1 / pixel))

    return region(name, field.box, planes())
