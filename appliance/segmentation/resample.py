"""Resampling as one matrix product for each axis.

A matrix holds, for each target voxel (row), the weights of the source voxels (columns). It is built from voxel
centres in mm, so there is no half-pixel convention to get wrong. Beyond the outermost centres the outermost value
holds. Every row sums to 1, and inside the source a linear ramp is reproduced exactly: nothing shifts.
"""

import math

import numpy as np
from numpy.typing import NDArray


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


def used_sources(weights: NDArray[np.floating]) -> slice:
    """Return the range of source voxels that any target voxel uses."""
    used = np.flatnonzero(weights.any(axis=0))
    return slice(int(used[0]), int(used[-1]) + 1)
