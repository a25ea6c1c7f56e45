"""CT volumes of known scenes, in any patient position."""

from collections.abc import Callable
from typing import Any

import numpy as np

from appliance.dicom.ct_volume import CtVolume
from appliance.dicom.geometry import SeriesGeometry
from appliance.dicom.roi import RoiMask
from tests.support.ct_files import ORIENTATIONS

PATIENT_POSITIONS = {
    position: (tuple(map(float, cosines[:3])), tuple(map(float, cosines[3:])))
    for position, cosines in ORIENTATIONS.items()
}
"""Row and column direction (x, y, z) of each patient position (PS3.3 C.7.3.1.1.2)."""


def series_grid(
    position: str,
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    middle_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> SeriesGeometry:
    """A grid of `shape` and `spacing_mm` (z, y, x) in the series' axes, whose middle is at `middle_mm` (x, y, z)."""
    row_direction, column_direction = PATIENT_POSITIONS[position]
    normal = np.cross(row_direction, column_direction)
    steps_mm = np.array([normal, column_direction, row_direction]) * np.asarray(spacing_mm)[:, np.newaxis]
    first_mm = np.asarray(middle_mm) - (np.asarray(shape) - 1) / 2 @ steps_mm
    positions_mm = first_mm + np.arange(shape[0])[:, np.newaxis] * steps_mm[0]
    return SeriesGeometry(positions_mm, row_direction, column_direction, spacing_mm[1:], shape[1], shape[2])


def voxel_centres_mm(geometry: SeriesGeometry) -> Any:
    """LPS (x, y, z) of every voxel centre, shape (z, y, x, 3)."""
    rows, columns = np.mgrid[: geometry.rows, : geometry.columns]
    pixels = np.stack([columns.ravel(), rows.ravel()], axis=1)
    planes = [geometry.plane(index).to_patient_mm(pixels) for index in range(geometry.shape[0])]
    return np.stack(planes).reshape(*geometry.shape, 3)


def scan(scene: Callable[[Any, Any, Any], Any], geometry: SeriesGeometry) -> CtVolume:
    """Take a CT of a scene: a function of patient x, y, z in mm that returns HU."""
    x_mm, y_mm, z_mm = np.moveaxis(voxel_centres_mm(geometry), -1, 0)
    hu = np.broadcast_to(scene(x_mm, y_mm, z_mm), geometry.shape)
    return CtVolume(hu=np.rint(hu).astype(np.int16), geometry=geometry)


def mask_positions_mm(mask: RoiMask, geometry: SeriesGeometry) -> Any:
    """LPS (x, y, z) of the centres of a mask's voxels, shape (N, 3)."""
    return voxel_centres_mm(geometry)[mask.in_grid(geometry.shape)]
