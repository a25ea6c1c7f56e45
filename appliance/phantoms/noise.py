"""Smooth random fields, and linear interpolation between grids, one axis at a time."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]


def stretch(values: Floats, axis: int, positions: npt.NDArray[np.float64]) -> Floats:
    """Read `values` along one axis at fractional indices, linearly, with the border value outside.

    Two gathers and a blend use no BLAS, so the same seed gives the same bits whatever the number of threads.
    """
    last = values.shape[axis] - 1
    inside = np.clip(positions, 0, last)
    lower = np.minimum(inside.astype(np.intp), max(last - 1, 0))
    weight = (inside - lower).astype(np.float32).reshape([-1 if k == axis else 1 for k in range(values.ndim)])
    low = np.take(values, lower, axis)
    low += weight * (np.take(values, np.minimum(lower + 1, last), axis) - low)
    return low


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], scale_voxels: float) -> Floats:
    """Gaussian field of unit variance at its nodes, which lie `scale_voxels` apart, linear in between."""
    nodes = [max(2, int(np.ceil(n / scale_voxels)) + 1) for n in shape]
    field = rng.standard_normal(nodes, dtype=np.float32)
    for axis, (n, m) in enumerate(zip(shape, nodes, strict=True)):
        field = stretch(field, axis, np.linspace(0, m - 1, n))
    return field
