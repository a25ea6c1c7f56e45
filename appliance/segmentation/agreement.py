"""How well two masks agree: Dice and the 95 % Hausdorff distance."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]


def dice(first: Mask, second: Mask) -> float:
    """Dice coefficient of two masks of one shape; 1 when both are empty."""
    total = int(np.count_nonzero(first)) + int(np.count_nonzero(second))
    return 2.0 * int(np.count_nonzero(first & second)) / total if total else 1.0


def hausdorff95_mm(first: Mask, second: Mask, spacing_mm: tuple[float, float, float]) -> float:
    """95th percentile of the distances between the surfaces of two masks, both ways together.

    A mask's surface is its voxels with a face neighbour outside it. Distances are between voxel centres.

    Args:
        first: mask (z, y, x).
        second: mask of the same shape.
        spacing_mm: voxel spacing (z, y, x).

    Returns:
        Millimetres; infinity when one mask is empty, 0 when both are.
    """
    if not first.any() or not second.any():
        return 0.0 if first.any() == second.any() else float("inf")
    window = _window(first | second)
    surfaces = [_surface(mask[window]) for mask in (first, second)]
    distances_mm = [
        ndimage.distance_transform_edt(~there, sampling=spacing_mm)[here]
        for here, there in (surfaces, reversed(surfaces))
    ]
    return float(np.percentile(np.concatenate(distances_mm), 95))


def _surface(mask: Mask) -> Mask:
    padded = np.pad(mask, 1)
    return np.asarray(mask & ~ndimage.binary_erosion(padded)[1:-1, 1:-1, 1:-1])


def _window(mask: Mask) -> tuple[slice, ...]:
    """The box that holds every True voxel: distances outside it are never asked for."""
    return tuple(
        slice(int(filled[0]), int(filled[-1]) + 1)
        for axis in range(mask.ndim)
        for filled in [np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))]
    )
