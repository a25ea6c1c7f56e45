"""A second opinion on contours: slow, simple, and sharing no code with the appliance.

It reads the coordinates as the file writes them, finds the image that a contour names, and tests every pixel centre
of that image against the polygon, by the image's own position, orientation and spacing.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset


def fill_structure_set(structure_set: Dataset, images: Iterable[Path]) -> dict[str, NDArray[np.bool_]]:
    """Return for each region its voxels, shape (images, rows, columns), in the order of `images`."""
    datasets = [dcmread(path) for path in images]
    places = {image.SOPInstanceUID: place for place, image in enumerate(datasets)}
    names = {item.ROINumber: item.ROIName for item in structure_set.StructureSetROISequence}
    filled = {}
    for item in structure_set.ROIContourSequence:
        voxels = np.zeros((len(datasets), datasets[0].Rows, datasets[0].Columns), dtype=np.bool_)
        for contour in item.get("ContourSequence", ()):
            (reference,) = contour.ContourImageSequence
            place = places[reference.ReferencedSOPInstanceUID]
            voxels[place] ^= _fill(np.array(contour.ContourData, dtype=float).reshape(-1, 3), datasets[place])
        filled[names[item.ReferencedROINumber]] = voxels
    return filled


def distance_from_plane_mm(points_mm: NDArray[np.float64], image: Dataset) -> float:
    """Return how far the farthest point lies off the plane of an image."""
    row, column = np.array(image.ImageOrientationPatient, dtype=float).reshape(2, 3)
    origin_mm = np.array(image.ImagePositionPatient, dtype=float)
    return float(np.abs((points_mm - origin_mm) @ np.cross(row, column)).max())


def _fill(points_mm: NDArray[np.float64], image: Dataset) -> NDArray[np.bool_]:
    row_direction, column_direction = np.array(image.ImageOrientationPatient, dtype=float).reshape(2, 3)
    offset_mm = points_mm - np.array(image.ImagePositionPatient, dtype=float)
    between_rows_mm, between_columns_mm = (float(spacing_mm) for spacing_mm in image.PixelSpacing)
    xs, ys = offset_mm @ row_direction / between_columns_mm, offset_mm @ column_direction / between_rows_mm
    rows, columns = np.mgrid[: image.Rows, : image.Columns]
    inside = np.zeros(rows.shape, dtype=np.bool_)
    for x, y, next_x, next_y in zip(xs, ys, np.roll(xs, -1), np.roll(ys, -1), strict=True):
        if y != next_y:
            spans = (y > rows) != (next_y > rows)
            inside ^= spans & (columns < x + (rows - y) * (next_x - x) / (next_y - y))
    return inside
