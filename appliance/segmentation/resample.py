"""Resampling as one matrix product for each axis.

A matrix holds, for each target voxel (row), the weights of the source voxels (columns). It is built from voxel
centres in mm, so there is no half-pixel convention to get wrong. Beyond the outermost centres the outermost value
holds. Every row sums to 1, and inside the source a linear ramp is reproduced exactly: nothing shifts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from appliance.segmentation.arrays import Arrays
from appliance.segmentation.backends.network import Array

ANISOTROPIC = 3
"""nnU-Net's threshold: slices further apart than so many pixels say little about what lies between them."""

BLOCK = 64
"""Targets whose matrix is kept as one: few enough that most of it is not zero, enough for a fast product."""


def linear_weights(source_mm: NDArray[np.float64], target_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrix (targets, sources) of linear interpolation between ascending centres."""
    weights = np.zeros((len(target_mm), len(source_mm)))
    if len(source_mm) == 1:
        weights[:, 0] = 1.0
        return weights
    position = np.interp(target_mm, source_mm, np.arange(len(source_mm)))
    left = np.minimum(position.astype(np.intp), len(source_mm) - 2)
    rows = np.arange(len(target_mm))
    weights[rows, left] = left + 1 - position
    weights[rows, left + 1] = position - left
    return weights


def area_weights(
    source_mm: NDArray[np.float64], target_mm: NDArray[np.float64], spacing_mm: float
) -> NDArray[np.float64]:
    """Return the matrix (targets, sources) that gives each target voxel the mean over its own length.

    A source voxel is already a mean over its own length, and widths add in squares. So the window averages over
    what is missing, sqrt(target^2 - source^2): noise of a fine CT is averaged out rather than aliased, while a CT
    as coarse as the target is only interpolated.

    Args:
        source_mm: centres of the source voxels, ascending.
        target_mm: centres of the target voxels, ascending.
        spacing_mm: distance between target voxels.
    """
    source_spacing_mm = float(np.median(np.diff(source_mm))) if len(source_mm) > 1 else spacing_mm
    width_mm = math.sqrt(max(spacing_mm**2 - source_spacing_mm**2, 0.0))
    samples = max(1, math.ceil(2 * width_mm / source_spacing_mm))
    offsets_mm = ((np.arange(samples) + 0.5) / samples - 0.5) * width_mm
    means = [linear_weights(source_mm, target_mm + offset_mm) for offset_mm in offsets_mm]
    return np.asarray(np.mean(means, axis=0))


def cubic_weights(source_mm: NDArray[np.float64], target_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrix (targets, sources) of spline interpolation of order 3 between evenly spaced centres.

    It is what scipy does to an axis, prefilter and edges included, and so what nnU-Net does by skimage's `resize`.
    """
    if len(source_mm) == 1:
        return np.ones((len(target_mm), 1))
    step_mm = (source_mm[-1] - source_mm[0]) / (len(source_mm) - 1)
    positions = (target_mm - source_mm[0]) / step_mm
    if len(source_mm) == len(target_mm) and np.allclose(positions, np.arange(len(positions)), atol=1e-6):
        return np.eye(len(source_mm))
    columns = [
        ndimage.map_coordinates(unit, positions[np.newaxis], order=3, mode="nearest") for unit in np.eye(len(source_mm))
    ]
    return np.stack(columns, axis=1)


def nearest_weights(
    source_mm: NDArray[np.float64], target_mm: NDArray[np.float64], *, ties_up: bool = True
) -> NDArray[np.float64]:
    """Return the matrix (targets, sources) that takes the nearest centre; of two, the upper or the lower one."""
    position = np.interp(target_mm, source_mm, np.arange(len(source_mm)))
    position = np.round(position, 6)  # what rounding of millimetres moves away from a tie
    nearest = np.floor(position + 0.5) if ties_up else np.ceil(position - 0.5)
    return np.asarray(np.eye(len(source_mm))[nearest.astype(np.intp)])


def separate_axis(spacing_mm: Sequence[float], other_mm: Sequence[float]) -> int | None:
    """Return the axis along which nnU-Net resamples apart from the others, by the nearest voxel; None in general.

    It does so along the coarse axis of a grid whose coarsest spacing is over three times its finest: of the grid that
    it comes from, or else of the one that it goes to.
    """
    for spacings_mm in (spacing_mm, other_mm):
        coarsest = max(spacings_mm)
        if coarsest / min(spacings_mm) > ANISOTROPIC:
            axes = [axis for axis, length_mm in enumerate(spacings_mm) if length_mm == coarsest]
            return axes[0] if len(axes) == 1 else None
    return None


def used_sources(weights: NDArray[np.floating]) -> slice:
    """Return the range of source voxels that any target voxel uses."""
    used = np.flatnonzero(weights.any(axis=0))
    return slice(int(used[0]), int(used[-1]) + 1)


@dataclass(frozen=True, eq=False)
class _Block:
    targets: slice
    sources: slice
    weights: Array  # (targets, sources)


class AxisMap:
    """One axis' matrix, in blocks of targets: a target needs its neighbourhood alone, not the whole axis.

    Args:
        weights: the whole matrix (targets, sources).
        arrays: where it is applied.
    """

    def __init__(self, weights: NDArray[np.floating], arrays: Arrays) -> None:
        self._blocks = []
        for first in range(0, len(weights), BLOCK):
            targets = slice(first, min(first + BLOCK, len(weights)))
            sources = used_sources(weights[targets])
            self._blocks.append(_Block(targets, sources, arrays.array(weights[targets, sources], "float32")))

    def sources(self, targets: slice) -> slice:
        """Return the range of source voxels that these targets use."""
        met = [block.sources for block, _ in self._within(targets)]
        return slice(min(side.start for side in met), max(side.stop for side in met))

    def along_rows(self, values: Array, targets: slice, first: int, arrays: Arrays) -> Array:
        """Resample the second axis of (n, sources, x) to (n, targets, x); `first` is the source at index 0."""
        n, _, columns = values.shape
        answer = arrays.empty((n, targets.stop - targets.start, columns), "float32")
        for block, wanted in self._within(targets):
            own = slice(wanted.start - block.targets.start, wanted.stop - block.targets.start)
            into = slice(wanted.start - targets.start, wanted.stop - targets.start)
            sources = slice(block.sources.start - first, block.sources.stop - first)
            answer[:, into] = arrays.xp.matmul(block.weights[own], values[:, sources])
        return answer

    def along_columns(self, values: Array, targets: slice, first: int, arrays: Arrays) -> Array:
        """Resample the last axis of (n, y, sources) to (n, y, targets); `first` is the source at index 0."""
        n, rows, _ = values.shape
        answer = arrays.empty((n, rows, targets.stop - targets.start), "float32")
        for block, wanted in self._within(targets):
            own = slice(wanted.start - block.targets.start, wanted.stop - block.targets.start)
            into = slice(wanted.start - targets.start, wanted.stop - targets.start)
            sources = slice(block.sources.start - first, block.sources.stop - first)
            answer[:, :, into] = arrays.xp.matmul(values[:, :, sources], block.weights[own].T)
        return answer

    def _within(self, targets: slice) -> list[tuple[_Block, slice]]:
        """The blocks that hold any of these targets, and which of them each holds."""
        return [
            (block, slice(max(targets.start, block.targets.start), min(targets.stop, block.targets.stop)))
            for block in self._blocks
            if block.targets.start < targets.stop and targets.start < block.targets.stop
        ]
