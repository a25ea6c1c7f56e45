"""From probabilities on the working grid to masks on the CT grid.

The winner among K classes has a probability of at least 1/K, and linear interpolation never exceeds the voxels
that it lies between. So a class can only win next to a working voxel where it reaches 1/K: each class is resampled
in that box alone, a few slices at a time with a running maximum, and the result is exactly that of an argmax over
all classes everywhere. No class tensor of the CT's size ever exists.

By how much the winner leads the second is kept as a byte for each voxel: contours run where neighbours are equally
sure, so that they are smooth, and the boundary between two organs is the same for both.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appliance.dicom.roi import RoiMask
from appliance.segmentation.manifest import Manifest
from appliance.segmentation.probabilities import RoiProbabilities
from appliance.segmentation.resample import linear_weights, used_sources
from appliance.segmentation.roi_rules import ClassLabels, apply_rules
from appliance.segmentation.working_grid import Box, WorkingGrid, enclosing

SLAB_SLICES = 8
"""CT slices decided at once: enough for fast matrix products, little enough to stay in the processor's cache."""

ROUNDING = 1e-4
"""How far below 1/K a winner may fall, as float32 probabilities do not sum to exactly 1."""


def decide(probabilities: RoiProbabilities, manifest: Manifest) -> list[RoiMask]:
    """Decide which voxels of the CT belong to each ROI of the manifest.

    Returns the ROIs that were found, in the manifest's order, cropped to their boxes, in the series' own axes.
    """
    return apply_rules(decide_classes(probabilities), probabilities.grid, manifest)


def decide_classes(probabilities: RoiProbabilities) -> ClassLabels:
    """Find the most likely class at each CT voxel; of equally likely ones the first. Outside the grid: 0."""
    grid = probabilities.grid
    labels = np.zeros(grid.ct_shape, np.uint8)
    certainty = np.full(grid.ct_shape, 255, np.uint8)
    in_series = grid.to_series(probabilities.mean_softmax)
    threshold = (1.0 - ROUNDING) / len(in_series)
    boxes = {
        number: box
        for number, likely in enumerate(in_series)
        if number and (box := _likely_box(likely >= threshold, grid)) is not None
    }
    if not boxes:
        return ClassLabels(labels, certainty, {})
    union = enclosing(list(boxes.values()))
    background = _Block.of(in_series[0], union, grid)
    foreground = {number: _Block.of(in_series[number], box, grid) for number, box in boxes.items()}
    for first in range(union[0].start, union[0].stop, SLAB_SLICES):
        slices = slice(first, min(first + SLAB_SLICES, union[0].stop))
        best = background.on_ct(slices)
        second = np.zeros_like(best)
        won = labels[slices, union[1], union[2]]
        for number, block in foreground.items():
            block.compete(number, slices, _Ranking(best, second, won), union)
        lead = np.subtract(best, second, out=second)
        lead *= 255
        certainty[slices, union[1], union[2]] = np.rint(lead, out=lead).clip(1, 255)
    return ClassLabels(labels, certainty, boxes)


@dataclass(frozen=True, slots=True, eq=False)
class _Ranking:
    """Highest and second highest probability at each voxel of some slices, and which class has the highest."""

    best: NDArray[np.float32]
    second: NDArray[np.float32]
    won: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class _Block:
    """One class where it may win: its working voxels, and the matrices that take them to a box of the CT."""

    box: Box
    likely: NDArray[np.float32]
    over_z: NDArray[np.float32]
    over_y: NDArray[np.float32]  # one matrix, or one for each slice of a sheared CT
    over_x: NDArray[np.float32]

    @classmethod
    def of(cls, likely: NDArray[np.float32], box: Box, grid: WorkingGrid) -> "_Block":
        over_z = linear_weights(grid.centres_mm[0], grid.ct_centres_mm[0][box[0]])
        slices = range(box[0].start, box[0].stop) if grid.is_sheared else [box[0].start]
        in_plane = [grid.ct_rows_and_columns_mm(index) for index in slices]
        over_y = np.stack([linear_weights(grid.centres_mm[1], rows_mm[box[1]]) for rows_mm, _ in in_plane])
        over_x = np.stack([linear_weights(grid.centres_mm[2], columns_mm[box[2]]) for _, columns_mm in in_plane])
        z, y, x = (used_sources(weights.reshape(-1, weights.shape[-1])) for weights in (over_z, over_y, over_x))
        return cls(
            box,
            np.ascontiguousarray(likely[z, y, x]),
            over_z[:, z].astype(np.float32),
            over_y[:, :, y].astype(np.float32),
            over_x[:, :, x].astype(np.float32).transpose(0, 2, 1),
        )

    def on_ct(self, slices: slice) -> NDArray[np.float32]:
        """Probabilities (z, y, x) in these slices of the CT, within the block's rows and columns."""
        own = slice(slices.start - self.box[0].start, slices.stop - self.box[0].start)
        over_z = self.over_z[own]
        used = used_sources(over_z)
        planes = np.tensordot(over_z[:, used], self.likely[used], axes=1)
        over_y, over_x = (weights[own] if len(weights) > 1 else weights[0] for weights in (self.over_y, self.over_x))
        return np.asarray(np.matmul(np.matmul(over_y, planes), over_x))

    def compete(self, number: int, slices: slice, ranking: _Ranking, union: Box) -> None:
        """Let a class take the voxels where it is the most likely so far; the ranking covers the union's box."""
        own = slice(max(slices.start, self.box[0].start), min(slices.stop, self.box[0].stop))
        if own.start >= own.stop:
            return
        window = tuple(
            slice(side.start - start, side.stop - start)
            for side, start in zip((own, *self.box[1:]), (slices.start, union[1].start, union[2].start), strict=True)
        )
        likely = self.on_ct(own)
        best, second = ranking.best[window], ranking.second[window]
        np.copyto(ranking.won[window], np.uint8(number), where=likely > best)
        beaten = np.minimum(likely, best)
        np.maximum(best, likely, out=best)
        np.maximum(second, beaten, out=second)


def _likely_box(likely: NDArray[np.bool_], grid: WorkingGrid) -> Box | None:
    """Return the CT box of all voxels that lie next to a True voxel of the working grid."""
    sides = []
    for axis, (centres, ct_centres) in enumerate(zip(grid.centres_mm, grid.ct_centres_mm, strict=True)):
        hot = np.flatnonzero(likely.any(axis=tuple({0, 1, 2} - {axis})))
        if not hot.size:
            return None
        # The grid ends half a voxel beyond its last centre; up to there the last value holds.
        half_mm = (centres[1] - centres[0]) / 2 if len(centres) > 1 else np.inf
        low_mm = centres[hot[0] - 1] if hot[0] else centres[0] - half_mm
        high_mm = centres[hot[-1] + 1] if hot[-1] + 1 < len(centres) else centres[-1] + half_mm
        shifts_mm = grid.shear_mm[:, axis - 1] if axis else np.zeros(1)
        first = int(np.searchsorted(ct_centres, low_mm - shifts_mm.max(), side="left"))
        stop = int(np.searchsorted(ct_centres, high_mm - shifts_mm.min(), side="right"))
        if first == stop:
            return None
        sides.append(slice(first, stop))
    return sides[0], sides[1], sides[2]
