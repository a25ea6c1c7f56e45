"""Do filled contours hold the voxels that they should?"""

import numpy as np
from numpy.typing import NDArray

from appliance.dicom.contour_points import ContourPoints
from appliance.dicom.geometry import SeriesGeometry
from appliance.dicom.roi import RoiMask

_AT_ONCE = 512  #: voxels whose distances to all edges of a slice are taken at once, to spare memory


def differing_voxels(first: RoiMask, second: RoiMask) -> NDArray[np.intp]:
    """Return (z, y, x) of the voxels that only one of two masks holds, shape (N, 3), by slices."""
    one, other = _tight(first), _tight(second)
    if one.box == other.box and np.array_equal(one.voxels, other.voxels):
        return np.zeros((0, 3), np.intp)
    corner = np.array([min(a.start, b.start) for a, b in zip(one.box, other.box, strict=True)])
    size = np.array([max(a.stop, b.stop) for a, b in zip(one.box, other.box, strict=True)]) - corner
    whole = [mask.moved((-corner).tolist()).in_grid(tuple(size.tolist())) for mask in (one, other)]
    return np.asarray(np.argwhere(whole[0] != whole[1]) + corner)


def farthest_from_contours_mm(
    voxels: NDArray[np.intp], contours: ContourPoints, slices: NDArray[np.intp], geometry: SeriesGeometry
) -> float:
    """Return how far the farthest of some voxels' centres lies from the contours of its slice; inf where it has none.

    Args:
        voxels: (z, y, x) of the voxels, shape (N, 3).
        contours: the contours.
        slices: the slice of each contour.
        geometry: the grid.
    """
    farthest_mm = 0.0
    starts_mm, ends_mm = contours.points_mm, contours.points_mm[contours.following]
    of_points = slices[contours.owners]
    for k in np.unique(voxels[:, 0]).tolist():
        here = of_points == k
        if not here.any():
            return np.inf
        centres_mm = geometry.plane(k).to_patient_mm(voxels[voxels[:, 0] == k][:, :0:-1])
        for first in range(0, len(centres_mm), _AT_ONCE):
            near_mm = _distances_mm(centres_mm[first : first + _AT_ONCE], starts_mm[here], ends_mm[here])
            farthest_mm = max(farthest_mm, float(near_mm.max()))
    return farthest_mm


def _tight(mask: RoiMask) -> RoiMask:
    """Crop a mask to its voxels."""
    return RoiMask.from_volume(mask.name, mask.voxels).moved([side.start for side in mask.box])


def _distances_mm(
    points_mm: NDArray[np.float64], starts_mm: NDArray[np.float64], ends_mm: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the distance of each point to the nearest of the edges."""
    along_mm = ends_mm - starts_mm
    squared = np.maximum(np.einsum("ij,ij->i", along_mm, along_mm), np.finfo(float).tiny)
    offsets_mm = points_mm[:, np.newaxis] - starts_mm
    part = (np.einsum("nej,ej->ne", offsets_mm, along_mm) / squared).clip(0, 1)
    return np.asarray(np.linalg.norm(offsets_mm - part[..., np.newaxis] * along_mm, axis=2).min(axis=1))
