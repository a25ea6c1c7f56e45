"""How well one mask covers another."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Mask = npt.NDArray[np.bool_]


def dice(found: Mask, truth: Mask) -> float:
    """Twice the common voxels over all voxels: 1 for equal masks, 0 for disjoint ones or when one is empty."""
    total = int(found.sum()) + int(truth.sum())
    return 2 * int((found & truth).sum()) / total if total else 1.0


def hausdorff95_mm(found: Mask, truth: Mask, spacing_mm: tuple[float, float, float]) -> float:
    """95th percentile of the distances between the two surfaces, both ways, in mm; infinite if a mask is empty."""
    if not found.any() or not truth.any():
        return float("inf")
    window = _margin(ndimage.find_objects((found | truth).astype(np.uint8))[0], found.shape)
    first, second = found[window], truth[window]
    surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in (first, second)]
    distances = [
        ndimage.distance_transform_edt(~there, sampling=spacing_mm)[here]
        for here, there in (surfaces, reversed(surfaces))
    ]
    return float(np.percentile(np.concatenate(distances), 95))


def _margin(window: tuple[slice, ...], shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(max(0, s.start - 1), min(n, s.stop + 1)) for s, n in zip(window, shape, strict=True))
