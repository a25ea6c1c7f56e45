"""Where the voxels of CT files lie, read with pydicom; it shares no code with the appliance.

Every image keeps its own position, orientation and spacing (PS3.3 §C.7.6.2). Patient positions are LPS, in mm.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

Points = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ImagePlane:
    """One image of a series.

    Attributes:
        uid: its SOP Instance UID.
        origin_mm: centre of its first voxel.
        along_row: unit vector along which the column index grows.
        along_column: unit vector along which the row index grows.
        spacing_mm: distance between rows, distance between columns.
    """

    uid: str
    origin_mm: Points
    along_row: Points
    along_column: Points
    spacing_mm: tuple[float, float]
    rows: int
    columns: int

    @cached_property
    def normal(self) -> Points:
        """Unit vector that stands on the image: row direction x column direction."""
        return np.cross(self.along_row, self.along_column)

    @cached_property
    def height_mm(self) -> float:
        """How far the plane lies from the patient's origin, along its normal."""
        return float(self.origin_mm @ self.normal)

    def to_pixels(self, points_mm: Points) -> tuple[Points, Points]:
        """Turn positions of shape (N, 3) into column and row indices, along the normal."""
        offset_mm = points_mm - self.origin_mm
        return offset_mm @ self.along_row / self.spacing_mm[1], offset_mm @ self.along_column / self.spacing_mm[0]

    def to_patient_mm(self, columns: Points, rows: Points) -> list[Points]:
        """Turn indices into x, y and z; where a coordinate does not depend on an index it keeps length 1 there."""
        across_mm, down_mm = np.asarray(columns) * self.spacing_mm[1], np.asarray(rows) * self.spacing_mm[0]
        return [
            self.origin_mm[axis]
            + (across_mm * self.along_row[axis] if self.along_row[axis] else np.zeros(()))
            + (down_mm * self.along_column[axis] if self.along_column[axis] else np.zeros(()))
            for axis in range(3)
        ]

    def off_plane_mm(self, points_mm: Points) -> Points:
        """Return how far positions of shape (N, 3) lie off the plane, whichever side."""
        return np.abs((points_mm - self.origin_mm) @ self.normal)


def read_plane(image: Path | Dataset) -> ImagePlane:
    """Read the plane of one image."""
    dataset = image if isinstance(image, Dataset) else dcmread(image, stop_before_pixels=True)
    directions = np.array(dataset.ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
    between_rows_mm, between_columns_mm = (float(spacing_mm) for spacing_mm in dataset.PixelSpacing)
    return ImagePlane(
        str(dataset.SOPInstanceUID),
        np.array(dataset.ImagePositionPatient, dtype=np.float64),
        directions[0],
        directions[1],
        (between_rows_mm, between_columns_mm),
        int(dataset.Rows),
        int(dataset.Columns),
    )


def read_planes(images: Iterable[Path]) -> list[ImagePlane]:
    """Read the planes of a series, ascending along their normal."""
    return sorted(map(read_plane, images), key=lambda plane: plane.height_mm)


def nearest(planes: Sequence[ImagePlane], points_mm: Points) -> NDArray[np.intp]:
    """Return for each position, shape (N, 3), which of the parallel planes lies nearest."""
    heights_mm = np.array([plane.height_mm for plane in planes])
    off_mm = np.abs(heights_mm - (points_mm @ planes[0].normal)[:, np.newaxis])
    return np.argmin(off_mm, axis=1)
