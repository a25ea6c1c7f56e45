"""Regions carried from one grid to another, for what is only simple along the patient's own axes."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from appliance.dicom.geometry import Points, SeriesGeometry
from appliance.dicom.roi import RoiMask
from appliance.segmentation.distance import signed_distances
from appliance.segmentation.regions import SignedPlane, region, signed_certainty

MOST_VOXELS = 16e6
"""How large a grid along the patient's axes may be: it is made coarser rather than larger."""


def upright_grid(mask: RoiMask, geometry: SeriesGeometry, around_mm: float) -> SeriesGeometry:
    """Return a grid along the patient's axes that holds a region and so much around it; as fine as the pixels."""
    corners_mm = _corners_mm(mask, geometry)
    first_mm = corners_mm.min(axis=0) - around_mm
    size_mm = corners_mm.max(axis=0) + around_mm - first_mm
    spacing_mm = max(min(geometry.pixel_spacing_mm), float(np.cbrt(np.prod(size_mm) / MOST_VOXELS)))
    columns, rows, slices = (int(length) + 3 for length in size_mm / spacing_mm)
    x_mm, y_mm, z_mm = (first_mm - spacing_mm).tolist()
    return SeriesGeometry.axial((slices, rows, columns), (spacing_mm,) * 3, (x_mm, y_mm, z_mm))


def carried(mask: RoiMask, source: SeriesGeometry, target: SeriesGeometry) -> RoiMask:
    """Bring a region from its grid to another, by the distance from its surface; it ends with the target's grid.

    Where the source's grid ends, the region goes on as it is there.
    """
    reach_mm = 2 * max(*target.spacing_mm, *source.spacing_mm)
    field = signed_distances(mask, source, reach_mm, reach_mm)
    distances = np.stack([plane.clip(-reach_mm, reach_mm) for plane in field.planes])
    corner = np.array([side.start for side in field.box], float)
    pixel_mm = max(target.pixel_spacing_mm)

    def planes() -> Iterator[SignedPlane]:
        columns, rows = np.meshgrid(np.arange(target.columns), np.arange(target.rows))
        pixels = np.stack([columns.ravel(), rows.ravel()], axis=1)
        for index in range(target.shape[0]):
            indices = _fractional_indices(source, target.plane(index).to_patient_mm(pixels)) - corner
            carried = ndimage.map_coordinates(distances, indices.T, order=1, mode="nearest")
            distance = carried.reshape(target.rows, target.columns)
            yield signed_certainty(distance < 0, np.abs(distance) / np.float32(pixel_mm))

    return region(mask.name, (slice(0, target.shape[0]), slice(0, target.rows), slice(0, target.columns)), planes())


def _fractional_indices(geometry: SeriesGeometry, points_mm: Points) -> NDArray[np.float64]:
    """Turn patient positions (N, 3) into (slice, row, column) indices between voxel centres, shape (N, 3)."""
    heights_mm = geometry.positions_mm @ np.asarray(geometry.normal)
    slices = np.interp(points_mm @ np.asarray(geometry.normal), heights_mm, np.arange(len(heights_mm)))
    aside_mm = (points_mm - geometry.positions_mm[0]) @ geometry.directions[1:].T
    shear_mm = np.stack([np.interp(slices, np.arange(len(heights_mm)), side) for side in geometry.shear.T], axis=1)
    return np.column_stack([slices, (aside_mm - shear_mm) / np.asarray(geometry.pixel_spacing_mm)])


def _corners_mm(mask: RoiMask, geometry: SeriesGeometry) -> Points:
    """The outermost voxel centres of a region's box in each of its slices."""
    z, y, x = mask.box
    corners = [(column, row) for row in (y.start, y.stop - 1) for column in (x.start, x.stop - 1)]
    return np.concatenate([geometry.plane(index).to_patient_mm(corners) for index in range(z.start, z.stop)])
