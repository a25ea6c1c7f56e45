"""Where voxels lie in the patient.

All positions are in the DICOM patient system: millimetres, x to the patient's left, y to the back, z to the head
(LPS, PS3.3 §C.7.6.2.1.1). Arrays are indexed (z, y, x): slice, row, column. Index 0.0 is the centre of the first
voxel. Every slice keeps its own position, so nothing is extrapolated from the first one.
"""

from dataclasses import dataclass
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Vector: TypeAlias = tuple[float, float, float]
Points: TypeAlias = NDArray[np.float64]

ROUNDING_MM = 0.05
"""What rounding of positions may be off, in gaps and sideways."""


@dataclass(frozen=True, slots=True)
class Plane:
    """One image plane (PS3.3 §C.7.6.2).

    Attributes:
        origin_mm: centre of the first voxel, (x, y, z).
        row_direction: unit vector along which the column index grows.
        column_direction: unit vector along which the row index grows.
        pixel_spacing_mm: distance between rows, distance between columns.
    """

    origin_mm: Vector
    row_direction: Vector
    column_direction: Vector
    pixel_spacing_mm: tuple[float, float]

    @property
    def normal(self) -> Vector:
        """Unit vector that stands on the plane: row direction x column direction."""
        return cross(self.row_direction, self.column_direction)

    def to_patient_mm(self, points: ArrayLike) -> Points:
        """Turn (column, row) indices of shape (N, 2) into patient positions of shape (N, 3)."""
        columns, rows = np.asarray(points, dtype=np.float64).T
        row_spacing_mm, column_spacing_mm = self.pixel_spacing_mm
        return np.asarray(
            np.asarray(self.origin_mm)
            + np.outer(columns * column_spacing_mm, self.row_direction)
            + np.outer(rows * row_spacing_mm, self.column_direction)
        )

    def to_pixels(self, points_mm: ArrayLike) -> Points:
        """Turn patient positions of shape (N, 3) into (column, row) indices of shape (N, 2), along the normal."""
        from_origin_mm = np.asarray(points_mm, dtype=np.float64) - self.origin_mm
        row_spacing_mm, column_spacing_mm = self.pixel_spacing_mm
        columns = from_origin_mm @ np.asarray(self.row_direction) / column_spacing_mm
        rows = from_origin_mm @ np.asarray(self.column_direction) / row_spacing_mm
        return np.stack([columns, rows], axis=1)


@dataclass(frozen=True, eq=False)
class SeriesGeometry:
    """The planes of a series, in ascending order along their common normal.

    Attributes:
        positions_mm: centre of each slice's first voxel, shape (slices, 3).
        row_direction: unit vector along which the column index grows.
        column_direction: unit vector along which the row index grows.
        pixel_spacing_mm: distance between rows, distance between columns.
        rows: voxels along the column direction (y).
        columns: voxels along the row direction (x).
    """

    positions_mm: Points
    row_direction: Vector
    column_direction: Vector
    pixel_spacing_mm: tuple[float, float]
    rows: int
    columns: int

    def __post_init__(self) -> None:
        positions_mm = np.array(self.positions_mm, dtype=np.float64).reshape(-1, 3)
        positions_mm.flags.writeable = False
        object.__setattr__(self, "positions_mm", positions_mm)

    @classmethod
    def axial(cls, shape: tuple[int, int, int], spacing_mm: Vector, origin_mm: Vector = (0.0, 0.0, 0.0)) -> Self:
        """Make a regular head-first supine grid: index axes (z, y, x) to the head, the back and the left."""
        slices, rows, columns = shape
        gap_mm, row_spacing_mm, column_spacing_mm = spacing_mm
        positions_mm = np.tile(np.asarray(origin_mm, dtype=np.float64), (slices, 1))
        positions_mm[:, 2] += gap_mm * np.arange(slices)
        return cls(positions_mm, (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (row_spacing_mm, column_spacing_mm), rows, columns)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along (z, y, x)."""
        return len(self.positions_mm), self.rows, self.columns

    @property
    def normal(self) -> Vector:
        """Unit vector along which the slice index grows: row direction x column direction."""
        return cross(self.row_direction, self.column_direction)

    @property
    def directions(self) -> Points:
        """Unit vectors along which the indices (z, y, x) grow, one a row, shape (3, 3)."""
        return np.array([self.normal, self.column_direction, self.row_direction])

    @property
    def gaps_mm(self) -> NDArray[np.float64]:
        """Distances between neighbouring slices along the normal, shape (slices - 1,)."""
        return np.asarray(np.diff(self.positions_mm @ np.asarray(self.normal)))

    @property
    def slice_gap_mm(self) -> float:
        """Median distance between neighbouring slices along the normal; 0 for a single slice."""
        return float(np.median(self.gaps_mm)) if len(self.positions_mm) > 1 else 0.0

    @property
    def spacing_mm(self) -> Vector:
        """Distance between voxel centres along (z, y, x)."""
        return self.slice_gap_mm, *self.pixel_spacing_mm

    @property
    def is_regular(self) -> bool:
        """Whether the voxels form one regular grid: even gaps, and no slice shifted in its plane, but for rounding."""
        if len(self.positions_mm) < 2:
            return False
        return float(max(np.ptp(self.gaps_mm), np.abs(self.shear).max())) <= ROUNDING_MM

    @property
    def slice_thickness_mm(self) -> NDArray[np.float64]:
        """How much of the normal each slice stands for: to the middle of the gaps on both sides, shape (slices,).

        The first and the last slice reach as far outwards as inwards. A single slice has no thickness.
        """
        gaps_mm = self.gaps_mm
        if not gaps_mm.size:
            return np.zeros(len(self.positions_mm))
        return np.asarray((np.append(gaps_mm[:1], gaps_mm) + np.append(gaps_mm, gaps_mm[-1:])) / 2)

    @property
    def shear(self) -> Points:
        """Where each slice lies sideways of the first: shape (slices, 2), mm along (column, row) direction.

        All zero but for a tilted gantry, whose slices are shifted in their own planes from one to the next.
        """
        from_first_mm = self.positions_mm - self.positions_mm[0]
        return np.asarray(from_first_mm @ np.array([self.column_direction, self.row_direction]).T)

    def plane(self, slice_index: int) -> Plane:
        """Return the plane of one slice, by its own position."""
        x_mm, y_mm, z_mm = self.positions_mm[slice_index].tolist()
        return Plane((x_mm, y_mm, z_mm), self.row_direction, self.column_direction, self.pixel_spacing_mm)

    def to_patient_mm(self, slice_indices: ArrayLike, points: ArrayLike) -> Points:
        """Turn (column, row) indices of shape (N, 2), each in the slice of its own index, into positions (N, 3)."""
        positions_mm = self.positions_mm[np.asarray(slice_indices, dtype=np.intp)]
        in_plane_mm = self.plane(0).to_patient_mm(points) - self.positions_mm[0]
        return np.asarray(positions_mm + in_plane_mm)


def cross(first: Vector, second: Vector) -> Vector:
    """Return the vector product of two vectors."""
    return (
        first[1] * second[2] - first[2] * second[1],
        first[2] * second[0] - first[0] * second[2],
        first[0] * second[1] - first[1] * second[0],
    )
