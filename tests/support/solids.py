"""Regions of known shape on any grid."""

from collections.abc import Callable
from typing import Any

import numpy as np

from appliance.dicom.geometry import SeriesGeometry
from appliance.dicom.roi import RoiMask
from tests.support.ct_volumes import voxel_centres_mm

Distance = Callable[[Any], Any]


def solid(
    distance_mm: Distance, geometry: SeriesGeometry, name: str = "Solid", *, known_surface: bool = False
) -> RoiMask:
    """What lies within a surface: `distance_mm` of patient positions (..., 3) is negative inside.

    With `known_surface` voxels are less certain the nearer they are to it, so that contours run on it.
    """
    distances_mm = distance_mm(voxel_centres_mm(geometry))
    if known_surface:
        return RoiMask.from_probabilities(name, np.clip(0.5 - distances_mm / 6, 0, 1).astype(np.float32))
    return RoiMask.from_volume(name, distances_mm <= 0)


def ball(radius_mm: float, middle_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Distance:
    """Signed distances from a sphere."""
    return lambda points_mm: np.linalg.norm(points_mm - np.asarray(middle_mm), axis=-1) - radius_mm


def block(half_mm: tuple[float, float, float], middle_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Distance:
    """Signed distances from a block along the patient's axes, half of whose sides (x, y, z) are given."""

    def distance(points_mm: Any) -> Any:
        beyond = np.abs(points_mm - np.asarray(middle_mm)) - np.asarray(half_mm)
        return np.linalg.norm(np.maximum(beyond, 0), axis=-1) + np.minimum(beyond.max(axis=-1), 0)

    return distance


def surface_points_mm(mask: RoiMask, geometry: SeriesGeometry) -> Any:
    """Where contours cross the rows and columns of a region's slices, by its certainty: patient positions (N, 3)."""
    inside = mask.in_grid(geometry.shape)
    sure = np.full(geometry.shape, 255.0)
    if mask.certainty is not None:
        sure[mask.box] = mask.certainty
    points = []
    for axis, step in ((1, (0, 1)), (2, (1, 0))):
        low = np.argwhere(np.diff(inside, axis=axis))
        high = low + np.eye(3, dtype=int)[axis]
        part = sure[tuple(low.T)] / (sure[tuple(low.T)] + sure[tuple(high.T)])
        pixels = low[:, [2, 1]] + part[:, np.newaxis] * np.array(step)
        points.append(geometry.to_patient_mm(low[:, 0], pixels))
    return np.concatenate(points)
