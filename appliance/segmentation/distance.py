"""How far each voxel lies from the surface of a region, in the patient.

Three facts make this quick and exact to a small part of a voxel. The distance to a set of points in a plane is the
least, over the rows, of (distance to the nearest point of that row)² + (distance to the row)². The distance to a body
is, in the same way, the least over the planes that cut it. And the least of such sums, one row or plane after the
other, is what numpy does fastest; nothing larger than a few planes is held.

The surface lies where contours run: between two neighbours of one slice, at the place that their certainty says.
Between two slices it is interpolated: the signed distances in their planes pass into each other. Where a region ends
from one slice to the next, it ends half-way to it. Where the scan ends there is no surface, because nothing is known
beyond.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import tee
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from appliance.dicom.geometry import SeriesGeometry
from appliance.dicom.roi import RoiMask
from appliance.segmentation.working_grid import Box

FloatPlane: TypeAlias = NDArray[np.float32]
Sides: TypeAlias = tuple[float, float]
_Value = TypeVar("_Value", np.bool_, np.uint8)

FAR = 1e6
"""A distance in mm beyond everything; its square by the finest unit still fits into float32."""

FINEST_UNIT_MM = 1e-3
"""What stands for a unit of no length: then nothing but the surface itself is near."""

SURFACE = np.float32(2e-3)
"""As near to the surface as a pixel can be: none lies on it."""

STEP_MM = 1.0
"""Between two slices the surface is interpolated at least this densely."""

BEVEL = 1.0
"""Sideways distance, in gaps between slices, over which the end of a region slopes to its full half gap of height."""

SMALLEST_SHIFT = 0.05
"""Slices that lie less than this many pixels sideways of each other count as straight above each other."""


@dataclass(frozen=True, slots=True)
class Metric:
    """What one unit of distance is, in mm, for surfaces that face lower and higher indices along (z, y, x)."""

    z: Sides = (1.0, 1.0)
    y: Sides = (1.0, 1.0)
    x: Sides = (1.0, 1.0)

    def largest_mm(self, axis: int) -> float:
        """Return the longer unit along an axis of (z, y, x)."""
        return max(*(self.z, self.y, self.x)[axis], FINEST_UNIT_MM)


MILLIMETRES = Metric()


@dataclass(frozen=True, slots=True, eq=False)
class DistanceField:
    """Signed distances from a surface: positive outside, negative inside.

    Attributes:
        box: the part of the grid that it covers: all within reach.
        planes: for each slice of the box, ascending, the distances (y, x) in units of the metric. Beyond the reach
            they are greater than the reach, and no more than that. They can be gone through once.
    """

    box: Box
    planes: Iterator[FloatPlane]


def signed_distances(
    mask: RoiMask, geometry: SeriesGeometry, inwards: float, outwards: float, metric: Metric = MILLIMETRES
) -> DistanceField:
    """Measure from the surface of a region as far as `inwards` and `outwards`, in units of the metric.

    Args:
        mask: the region, which is not empty.
        geometry: where the voxels lie.
        inwards: how far distances are wanted inside.
        outwards: how far distances are wanted outside.
        metric: what a unit is in each direction of the grid.
    """
    heights_mm = geometry.positions_mm @ np.asarray(geometry.normal)
    slices = _slices_in_reach(mask.box[0], heights_mm, outwards, metric.z)
    shifts = _shifts(geometry, slices)
    rows, columns = (
        _side_in_reach(mask.box, geometry, axis, outwards * metric.largest_mm(axis), shifts) for axis in (1, 2)
    )
    bevel = BEVEL * geometry.slice_gap_mm / max(metric.largest_mm(1), metric.largest_mm(2))
    seen = _Seen(mask, geometry, (slices, rows, columns), metric, max(inwards, outwards) + bevel)
    planes: Iterator[FloatPlane] = (seen.plane(index) for index in range(slices.start, slices.stop))
    if shifts.any():
        planes = _shifted(planes, shifts)
    outside, inside = tee(planes)
    steps_mm = heights_mm[slices]
    outer = _spread(outside, steps_mm, metric.z, outwards, bevel)
    inner = _spread((-plane for plane in inside), steps_mm, metric.z[::-1], inwards, bevel)
    signed: Iterator[FloatPlane] = (out - depth for out, depth in zip(outer, inner, strict=True))
    if shifts.any():
        signed = seen.with_its_sides(_shifted(signed, -shifts))
    return seen.on_grid(signed)


def _slices_in_reach(own: slice, heights_mm: NDArray[np.float64], reach: float, units_mm: Sides) -> slice:
    """The slices of a box and those within reach, at least one more on either side: all within the grid."""
    low_mm, high_mm = (reach * max(side, FINEST_UNIT_MM) for side in units_mm)
    gap_mm = float(np.diff(heights_mm).max(initial=0.0))
    start = np.searchsorted(heights_mm, heights_mm[own.start] - low_mm - gap_mm / 2)
    stop = np.searchsorted(heights_mm, heights_mm[own.stop - 1] + high_mm + gap_mm / 2, side="right")
    return slice(min(int(start), max(0, own.start - 1)), max(int(stop), min(len(heights_mm), own.stop + 1)))


def _shifts(geometry: SeriesGeometry, slices: slice) -> NDArray[np.float64]:
    """How many (rows, columns) each slice lies aside of the middle one; 0 for all in a straight stack."""
    shear_mm = geometry.shear[slices]
    shifts = (shear_mm - shear_mm[len(shear_mm) // 2]) / np.asarray(geometry.pixel_spacing_mm)
    return np.where(np.abs(shifts).max() < SMALLEST_SHIFT, 0.0, shifts)


def _side_in_reach(
    box: Box, geometry: SeriesGeometry, axis: int, reach_mm: float, shifts: NDArray[np.float64]
) -> slice:
    """The rows or columns of a box and those within reach.

    Where slices are shifted they may go beyond the grid: its border then is at another place in each slice.
    """
    reach = math.ceil(reach_mm / geometry.spacing_mm[axis]) + 1
    aside = math.ceil(np.abs(shifts[:, axis - 1]).max())
    start, stop = box[axis].start - reach - aside, box[axis].stop + reach + aside
    return slice(max(-aside, start), min(geometry.shape[axis] + aside, stop))


def _shifted(planes: Iterable[FloatPlane], shifts: NDArray[np.float64]) -> Iterator[FloatPlane]:
    """Move each plane by its own (rows, columns)."""
    for plane, shift in zip(planes, shifts, strict=True):
        yield ndimage.shift(plane, shift, order=1, mode="nearest")


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """A region seen through a window of the grid, plane by plane."""

    mask: RoiMask
    geometry: SeriesGeometry
    window: Box
    metric: Metric
    limit: float

    def inside(self, index: int) -> NDArray[np.bool_] | None:
        """Which pixels of a slice belong to the region; None when none do."""
        z = self.mask.box[0]
        if not z.start <= index < z.stop or not self.mask.voxels[index - z.start].any():
            return None
        return self._through_window(self.mask.voxels[index - z.start], fill=False)

    def with_its_sides(self, planes: Iterable[FloatPlane]) -> Iterator[FloatPlane]:
        """Make sure that moving planes to and fro has taken no pixel to the other side of the surface."""
        for index, plane in enumerate(planes, self.window[0].start):
            inside = self.inside(index)
            outside = np.maximum(plane, SURFACE)
            yield outside if inside is None else np.where(inside, np.minimum(plane, -SURFACE), outside)

    def on_grid(self, planes: Iterable[FloatPlane]) -> DistanceField:
        """Leave out what lies beyond the grid."""
        slices, *sides = self.window
        rows, columns = (
            slice(max(0, side.start), min(length, side.stop))
            for side, length in zip(sides, self.geometry.shape[1:], strict=True)
        )
        seen_rows = slice(rows.start - sides[0].start, rows.stop - sides[0].start)
        seen_columns = slice(columns.start - sides[1].start, columns.stop - sides[1].start)
        return DistanceField((slices, rows, columns), (plane[seen_rows, seen_columns] for plane in planes))

    def plane(self, index: int) -> FloatPlane:
        """Signed distances within the plane of one slice, up to the limit."""
        inside = self.inside(index)
        if inside is None:
            return np.full([side.stop - side.start for side in self.window[1:]], FAR, np.float32)
        if self.mask.certainty is None:
            certainty = _smoothness(inside)
        else:
            sure = self.mask.certainty[index - self.mask.box[0].start]
            certainty = self._through_window(sure, fill=255).astype(np.float32)
        spacing_mm = self.geometry.pixel_spacing_mm
        outside = planar_distance(inside, certainty, spacing_mm, (self.metric.y, self.metric.x), self.limit)
        depth = outside
        mirrored = self.metric.y[::-1], self.metric.x[::-1]
        if mirrored != (self.metric.y, self.metric.x):
            depth = planar_distance(inside, certainty, spacing_mm, mirrored, self.limit)
        return np.where(inside, -depth, outside)

    def _through_window(self, values: NDArray[_Value], fill: object) -> NDArray[_Value]:
        """A plane of the mask's box as the window shows it; what lies beyond the grid is as at its border."""
        _, y, x = self.mask.box
        plane = np.full((self.geometry.rows, self.geometry.columns), fill, values.dtype)
        plane[y, x] = values
        _, rows, columns = self.window
        beyond = [
            (max(0, -side.start), max(0, side.stop - length))
            for side, length in ((rows, self.geometry.rows), (columns, self.geometry.columns))
        ]
        shown = plane[max(0, rows.start) : rows.stop, max(0, columns.start) : columns.stop]
        return np.pad(shown, beyond, mode="edge") if any(map(any, beyond)) else shown


def planar_distance(
    inside: NDArray[np.bool_],
    certainty: FloatPlane,
    spacing_mm: tuple[float, float],
    metric: tuple[Sides, Sides],
    limit: float,
) -> FloatPlane:
    """Return how far each pixel (y, x) lies from the contours of one slice, without sign, up to about the limit.

    Args:
        inside: the pixels of the region.
        certainty: how sure each is of its side, more than 0.
        spacing_mm: distance between rows, distance between columns.
        metric: what a unit is towards lower and higher (row, column) indices.
        limit: how far distances are wanted.
    """
    by_rows = _through_rows(inside, certainty, spacing_mm, metric, limit)
    by_columns = _through_rows(
        np.ascontiguousarray(inside.T),
        np.ascontiguousarray(certainty.T),
        spacing_mm[::-1],
        metric[::-1],
        limit,
    )
    squares = np.minimum(by_rows, by_columns.T)
    return np.asarray(np.sqrt(squares, out=squares))


def _smoothness(inside: NDArray[np.bool_]) -> FloatPlane:
    """A certainty for pixels (y, x) of which none is known: how many of those around are on the same side.

    Steps along a slanted contour would otherwise count as corners, and the nearest corner is always the nearest.
    No contour moves by more than a quarter of a pixel, and none between straight rows or columns moves.
    """
    share = inside.astype(np.float32)
    for axis in (0, 1):
        share = ndimage.correlate1d(share, [0.25, 0.5, 0.25], axis=axis, mode="nearest")
    return np.asarray(np.clip(np.where(inside, share, 1 - share) * 2 - 1, 0.2, 0.6))


def _through_rows(
    inside: NDArray[np.bool_],
    certainty: FloatPlane,
    spacing_mm: tuple[float, float],
    metric: tuple[Sides, Sides],
    limit: float,
) -> FloatPlane:
    """Squared distances to where contours cross the rows: within each row first, then from row to row."""
    row_mm, column_mm = spacing_mm
    towards_low, towards_high = (max(side, FINEST_UNIT_MM) for side in metric[1])
    centres_mm = np.arange(inside.shape[1], dtype=np.float32) * np.float32(column_mm)
    crossed = inside[:, 1:] != inside[:, :-1]
    fraction = certainty[:, :-1] / (certainty[:, :-1] + certainty[:, 1:])
    crossings_mm = centres_mm[:-1] + np.float32(column_mm) * fraction
    nearest = np.full(inside.shape, FAR / FINEST_UNIT_MM, np.float32)
    if not crossed.any():
        return np.square(nearest, out=nearest)
    low_mm = np.maximum.accumulate(np.where(crossed, crossings_mm, np.float32(-FAR)), axis=1)
    nearest[:, 1:] = (centres_mm[1:] - low_mm) / np.float32(towards_high)
    high_mm = np.minimum.accumulate(np.where(crossed, crossings_mm, np.float32(FAR))[:, ::-1], axis=1)[:, ::-1]
    np.minimum(nearest[:, :-1], (high_mm - centres_mm[:-1]) / np.float32(towards_low), out=nearest[:, :-1])
    in_row = np.square(nearest, out=nearest)
    least = in_row.copy()
    sums = np.empty_like(in_row)  # one place for all, because asking for memory takes longer than adding
    for towards, unit_mm in zip((-1, 1), metric[0], strict=True):
        step = row_mm / max(unit_mm, FINEST_UNIT_MM)
        for rows in range(1, min(len(inside) - 1, math.floor(limit / step) + 1) + 1):
            source, target = (in_row[:-rows], least[rows:]) if towards > 0 else (in_row[rows:], least[:-rows])
            np.minimum(target, np.add(source, np.float32((rows * step) ** 2), out=sums[rows:]), out=target)
    return least


def _spread(
    planes: Iterable[FloatPlane], heights_mm: NDArray[np.float64], units_mm: Sides, limit: float, bevel: float
) -> Iterator[FloatPlane]:
    """From signed distances in each plane to the distances in space of what lies outside; 0 inside.

    Each plane, and each one interpolated beside it, is spread to all planes within the limit.
    """
    low_mm, high_mm = (max(side, FINEST_UNIT_MM) for side in units_mm)
    open_planes: deque[FloatPlane] = deque()
    done = 0
    for index, around in enumerate(_with_neighbours(planes)):
        for height_mm, squares in _sources(around, index, heights_mm, bevel, limit * max(low_mm, high_mm)):
            sums = np.empty_like(squares)
            first = max(done, int(np.searchsorted(heights_mm, height_mm - limit * low_mm)))
            stop = int(np.searchsorted(heights_mm, height_mm + limit * high_mm, side="right"))
            while done + len(open_planes) < stop:
                open_planes.append(np.full(squares.shape, FAR**2, np.float32))
            for target in range(first, stop):
                apart_mm = heights_mm[target] - height_mm
                away = np.float32((apart_mm / (high_mm if apart_mm > 0 else low_mm)) ** 2)
                best = open_planes[target - done]
                np.minimum(best, np.add(squares, away, out=sums), out=best)
        next_mm = (heights_mm[index] + heights_mm[index + 1]) / 2 if index + 1 < len(heights_mm) else np.inf
        while done < len(heights_mm) and heights_mm[done] < next_mm - limit * low_mm:
            finished = open_planes.popleft() if open_planes else np.full(around[1].shape, FAR**2, np.float32)
            done += 1
            yield np.sqrt(finished, out=finished)


def _sources(
    around: tuple[FloatPlane | None, FloatPlane, FloatPlane | None],
    index: int,
    heights_mm: NDArray[np.float64],
    bevel: float,
    reach_mm: float,
) -> Iterator[tuple[float, FloatPlane]]:
    """A plane, and those between it and the middle of the gaps beside it: heights, and squared distances within.

    Those that reach no plane, not even this one, are left out.

    The distance to the end of a region is not allowed to change faster than over the bevel, so that parts that are
    gone in the next slice end half-way to it, however far away the next part is.
    """
    here = around[1]
    if not (here < 0).any():
        return
    yield float(heights_mm[index]), np.square(np.maximum(here, 0))
    near = np.maximum(here, np.float32(-bevel))
    low, high = np.minimum(here, 0) - np.float32(bevel), np.maximum(here, 0) + np.float32(bevel)
    for beside, neighbour in ((index - 1, around[0]), (index + 1, around[2])):
        if neighbour is None:
            continue
        slope = np.clip(neighbour, low, high) - near
        gap_mm = heights_mm[beside] - heights_mm[index]
        steps = math.ceil(abs(gap_mm) / 2 / STEP_MM)
        reaching = int(min(1.0, reach_mm / (abs(gap_mm) / 2)) * steps)
        for step in range(1, reaching + 1):
            part = step / steps / 2
            between = near + np.float32(part) * slope
            yield float(heights_mm[index] + part * gap_mm), np.square(np.maximum(between, 0, out=between))


def _with_neighbours(
    planes: Iterable[FloatPlane],
) -> Iterator[tuple[FloatPlane | None, FloatPlane, FloatPlane | None]]:
    before: FloatPlane | None = None
    here: FloatPlane | None = None
    for after in planes:
        if here is not None:
            yield before, here, after
        before, here = here, after
    if here is not None:
        yield before, here, None
