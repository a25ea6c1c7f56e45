"""From finished planes of the working grid to labels on the CT grid, a few slices at a time.

Linear interpolation never exceeds the voxels that it lies between. Among K classes whose votes sum to 1 the winner has
at least 1/K, so a class can only win next to a working voxel where it reaches that; among logits, next to one where
it is not below the background. Each class is resampled in that box alone, with a running maximum, and the result is
that of an argmax over all classes everywhere. No class tensor of the CT's size ever exists.

By how much the winner leads the second of those that may win there is kept as a byte for each voxel: contours run
where neighbours are equally sure, so that they are smooth, and the boundary between two organs is the same for both.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appliance.segmentation.arrays import Arrays, to_host
from appliance.segmentation.backends.network import Array
from appliance.segmentation.manifest import Manifest
from appliance.segmentation.resample import AxisMap, linear_weights, nearest_weights, separate_axis, used_sources
from appliance.segmentation.roi_rules import ClassLabels
from appliance.segmentation.working_grid import Box, WorkingGrid, enclosing

SLAB_SLICES = 4
"""CT slices decided at once: enough for fast matrix products, little enough to stay in the processor's cache."""

ROUNDING = 1e-4
"""How far below 1/K a winner may fall, as float32 votes do not sum to exactly 1."""

FAR_BEHIND = 32.0
"""Where nobody else was asked, the winner leads by so many nats: it is sure."""


@dataclass(frozen=True, slots=True, eq=False)
class _Ranking:
    """Highest and second highest vote at each voxel of some slices, and which class has the highest."""

    best: Array
    second: Array
    won: Array


@dataclass(frozen=True, eq=False)
class _Planes:
    """Finished planes of the working grid.

    Attributes:
        first: the plane of the grid that index 0 is.
        values: (classes, planes, rows, columns).
        hot_rows: whether a class may win next to a row, (classes, planes, rows).
        hot_columns: the same for columns.
    """

    first: int
    values: Array
    hot_rows: NDArray[np.bool_]
    hot_columns: NDArray[np.bool_]

    @property
    def stop(self) -> int:
        return self.first + int(self.values.shape[1])

    def within(self, first: int, stop: int) -> slice:
        """The indices of the planes from `first` to `stop` that are here."""
        return slice(max(first - self.first, 0), max(0, min(stop, self.stop) - self.first))


class Labelling:
    """Labels of a CT while its classes come in, plane after plane.

    Args:
        grid: the working grid.
        manifest: how the votes were made, and what overrules them.
        arrays: where the votes are.
    """

    def __init__(self, grid: WorkingGrid, manifest: Manifest, arrays: Arrays) -> None:
        self._grid, self._manifest, self._arrays = grid, manifest, arrays
        self._classes = len(manifest.classes)
        self._labels = np.zeros(grid.ct_shape, np.uint8)
        self._certainty = np.full(grid.ct_shape, 255, np.uint8)
        self._boxes: dict[int, list[Box]] = {}
        self._apart = self._separate_axis()
        self._over_z = self._weights(0, grid.ct_centres_mm[0]).astype(np.float32)
        self._sources = [used_sources(row[np.newaxis]) for row in self._over_z]
        self._in_plane: dict[int, tuple[AxisMap, AxisMap]] = {}
        self._kept: _Planes | None = None
        self._next = 0

    def take(self, first: int, planes: Array) -> None:
        """Take finished planes (classes, planes, rows, columns), the first of which is plane `first` of the grid.

        They may be overwritten afterwards.
        """
        new = _Planes(first, planes, *self._hot(planes))
        parts = [new] if self._kept is None else [self._kept, new]
        slices = len(self._sources)
        while self._next < slices and self._sources[self._next].stop <= new.stop:
            together = min(self._next + (1 if self._grid.is_sheared else SLAB_SLICES), slices)
            stop = self._next + 1
            while stop < together and self._sources[stop].stop <= new.stop:
                stop += 1
            self._decide(slice(self._next, stop), parts)
            self._next = stop
        self._keep(parts)

    def result(self) -> ClassLabels:
        """The labels, once all planes were taken."""
        return ClassLabels(
            self._labels, self._certainty, {number: enclosing(boxes) for number, boxes in sorted(self._boxes.items())}
        )

    def _hot(self, planes: Array) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        xp = self._arrays.xp
        by_rows, by_columns = [], []
        for plane in range(planes.shape[1]):
            values = planes[:, plane]
            if self._manifest.ensemble == "mean_logits":
                values = values - values[:1]
            by_rows.append(to_host(xp.max(values, axis=2)))
            by_columns.append(to_host(xp.max(values, axis=1)))
        limit = 0.0 if self._manifest.ensemble == "mean_logits" else (1.0 - ROUNDING) / self._classes
        return np.stack(by_rows, axis=1) >= limit, np.stack(by_columns, axis=1) >= limit

    def _keep(self, parts: Sequence[_Planes]) -> None:
        """Keep the planes that slices to come need."""
        if self._next == len(self._sources):
            self._kept = None
            return
        xp, first, stop = self._arrays.xp, self._sources[self._next].start, parts[-1].stop
        used = [(part, part.within(first, stop)) for part in parts]
        self._kept = _Planes(
            min(first, stop),
            xp.concat([xp.asarray(part.values[:, side], copy=True) for part, side in used], axis=1),
            np.concatenate([part.hot_rows[:, side] for part, side in used], axis=1),
            np.concatenate([part.hot_columns[:, side] for part, side in used], axis=1),
        )

    def _decide(self, slices: slice, parts: Sequence[_Planes]) -> None:
        boxes = self._boxes_of(slices, parts)
        if not boxes:
            return
        union = enclosing(list(boxes.values()))
        best = self._on_ct(0, union, parts)
        logits = self._manifest.ensemble == "mean_logits"
        ranking = _Ranking(
            best,
            best - FAR_BEHIND if logits else self._arrays.zeros(tuple(best.shape), "float32"),
            self._arrays.zeros(tuple(best.shape), "uint8"),
        )
        for number, box in boxes.items():
            self._compete(number, box, ranking, (union, parts))
            self._boxes.setdefault(number, []).append(box)
        self._overrule(ranking, boxes, (union, parts))
        self._labels[union] = to_host(ranking.won)
        lead = ranking.best - ranking.second
        if logits:  # between two classes this is the difference of their probabilities
            lead = self._arrays.xp.tanh(lead / 2)
        certainty = self._arrays.xp.clip(self._arrays.xp.round(lead * 255), 1, 255)
        self._certainty[union] = to_host(certainty)

    def _boxes_of(self, slices: slice, parts: Sequence[_Planes]) -> dict[int, Box]:
        """For each class but background that may win in these slices the box of the CT where it may."""
        first, stop = self._sources[slices.start].start, self._sources[slices.stop - 1].stop
        sides = [(part, part.within(first, stop)) for part in parts]
        rows = np.logical_or.reduce([part.hot_rows[:, side].any(axis=1) for part, side in sides])
        columns = np.logical_or.reduce([part.hot_columns[:, side].any(axis=1) for part, side in sides])
        within = self._reach(0, np.array([first, stop - 1]), slices)
        if within is None:
            return {}
        planes = slice(max(within.start, slices.start), min(within.stop, slices.stop))
        boxes = {}
        for number in range(1, self._classes):
            y = self._reach(1, np.flatnonzero(rows[number]), slices)
            x = self._reach(2, np.flatnonzero(columns[number]), slices)
            if y is not None and x is not None and planes.start < planes.stop:
                boxes[number] = (planes, y, x)
        return boxes

    def _reach(self, axis: int, hot: NDArray[np.intp], slices: slice) -> slice | None:
        """The CT voxels of an axis that lie between working voxels of which one is hot."""
        if not hot.size:
            return None
        centres, ct_centres = self._grid.centres_mm[axis], self._grid.ct_centres_mm[axis]
        # The grid ends half a voxel beyond its last centre; up to there the last value holds.
        half_mm = (centres[1] - centres[0]) / 2 if len(centres) > 1 else np.inf
        low_mm = centres[hot[0] - 1] if hot[0] else centres[0] - half_mm
        high_mm = centres[hot[-1] + 1] if hot[-1] + 1 < len(centres) else centres[-1] + half_mm
        shifts_mm = self._grid.shear_mm[slices, axis - 1] if axis else np.zeros(1)
        first = int(np.searchsorted(ct_centres, low_mm - shifts_mm.max(), side="left"))
        stop = int(np.searchsorted(ct_centres, high_mm - shifts_mm.min(), side="right"))
        return slice(first, stop) if first < stop else None

    def _compete(self, number: int, box: Box, ranking: _Ranking, among: tuple[Box, Sequence[_Planes]]) -> None:
        """Let a class take the voxels where it is the likeliest so far; the ranking covers the union's box."""
        xp = self._arrays.xp
        union, parts = among
        window = _window(box, union)
        votes = self._on_ct(number, box, parts)
        best, second, won = ranking.best[window], ranking.second[window], ranking.won[window]
        slices, rows, columns = votes.shape
        step = self._arrays.planes_at_once(4 * slices * columns, rows)
        for first in range(0, rows, step):
            some = (slice(None), slice(first, first + step))
            challenger, leader = votes[some], best[some]
            won[some] = xp.where(challenger > leader, number, won[some])
            second[some] = xp.maximum(second[some], xp.minimum(challenger, leader))
            best[some] = xp.maximum(leader, challenger)

    def _overrule(self, ranking: _Ranking, boxes: dict[int, Box], among: tuple[Box, Sequence[_Planes]]) -> None:
        """Give voxels to the likelier of two classes that together outweigh the one that won them."""
        xp = self._arrays.xp
        union, parts = among
        for rule in self._manifest.summed_probabilities:
            pair = self._manifest.numbers((rule.first, rule.second))
            if not any(number in boxes for number in pair):
                continue
            (external,) = self._manifest.numbers((rule.external,))
            first, second = (self._on_ct(number, union, parts) for number in pair)
            lost = (ranking.won == external) & (first + second > self._on_ct(external, union, parts))
            likelier = xp.where(second > first, pair[1], pair[0])
            ranking.won[...] = xp.astype(xp.where(lost, likelier, ranking.won), xp.uint8)
            for number in pair:
                self._boxes.setdefault(number, []).append(union)

    def _on_ct(self, number: int, box: Box, parts: Sequence[_Planes]) -> Array:
        """The votes (z, y, x) for a class in a box of the CT."""
        rows, columns = self._maps(box[0].start)
        y, x = rows.sources(box[1]), columns.sources(box[2])
        first, stop = self._sources[box[0].start].start, self._sources[box[0].stop - 1].stop
        planes = None
        for part in parts:
            side = part.within(first, stop)
            if side.start >= side.stop:
                continue
            weights = self._over_z[box[0], part.first + side.start : part.first + side.stop]
            values = self._arrays.xp.astype(part.values[number, side, y, x], self._arrays.xp.float32, copy=False)
            product = self._arrays.xp.tensordot(self._arrays.array(weights), values, axes=1)
            planes = product if planes is None else planes + product
        over_y = rows.along_rows(planes, box[1], y.start, self._arrays)
        return columns.along_columns(over_y, box[2], x.start, self._arrays)

    def _maps(self, slice_index: int) -> tuple[AxisMap, AxisMap]:
        """The matrices of rows and columns; those of a sheared CT are each slice's own."""
        key = slice_index if self._grid.is_sheared else 0
        if key not in self._in_plane:
            self._in_plane.clear()
            rows, columns = (
                AxisMap(self._weights(axis, target_mm), self._arrays)
                for axis, target_mm in enumerate(self._grid.ct_rows_and_columns_mm(key), start=1)
            )
            self._in_plane[key] = rows, columns
        return self._in_plane[key]

    def _separate_axis(self) -> int | None:
        """The series axis along which the nearest working voxel is taken, as nnU-Net does; None in general."""
        if self._manifest.input.resampling != "cubic":
            return None
        spacing_mm = self._grid.in_series_axes(self._manifest.input.spacing_mm)
        return separate_axis(spacing_mm, self._grid.ct_spacing_mm)

    def _weights(self, axis: int, ct_centres_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """The matrix (CT voxels, working voxels) of a series axis."""
        centres_mm = self._grid.centres_mm[axis]
        if axis == self._apart:
            backwards = self._grid.in_series_axes(self._grid.reversed_axes)[axis]
            return nearest_weights(centres_mm, ct_centres_mm, ties_up=not backwards)
        return linear_weights(centres_mm, ct_centres_mm)


def _window(box: Box, union: Box) -> Box:
    """A box counted from the first voxel of another one that holds it."""
    z, y, x = (slice(side.start - whole.start, side.stop - whole.start) for side, whole in zip(box, union, strict=True))
    return z, y, x
