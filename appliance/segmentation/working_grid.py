"""The network's own grid, laid over a CT: where its voxels are, and how its axes relate to the series' axes.

Large arrays always keep the series' axes. Along each of them a voxel has one coordinate in mm, so that both grids
are three lists of voxel centres, and going from one to the other is one matrix product for each axis. Where a tilted
gantry shifts each slice in its own plane, the products within the slice are each slice's own. Only single tiles are
turned to the axes that the network was trained on.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from appliance.dicom.geometry import SeriesGeometry
from appliance.errors import Reason, SeriesRefused
from appliance.segmentation.backends.network import Array

T = TypeVar("T")
Box: TypeAlias = tuple[slice, slice, slice]
Centres: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]

SHEAR_FROM_MM = 0.1
"""Smaller shifts in all are rounding: one set of matrices serves all slices."""

MIN_AXIS_COSINE = 0.9
"""A series axis turned further than 26 degrees from its patient axis shows a patient as no network learnt one."""


@dataclass(frozen=True, eq=False)
class WorkingGrid:
    """A regular grid over a CT, both described along the series' axes (z, y, x).

    Attributes:
        ct_centres_mm: voxel centres of the CT along each series axis, ascending; within the plane, of the first slice.
        shear_mm: how far each slice of the CT is shifted along the series axes (y, x), shape (slices, 2).
        centres_mm: voxel centres of this grid along each series axis, ascending.
        series_axes: for each of the network's index axes (z, y, x) the series axis that runs along it.
        reversed_axes: for each of them whether the series axis runs the other way.
        left_is_descending: whether the index along the left-right axis falls towards the patient's left.
    """

    ct_centres_mm: Centres
    shear_mm: NDArray[np.float64]
    centres_mm: Centres
    series_axes: tuple[int, int, int]
    reversed_axes: tuple[bool, bool, bool]
    left_is_descending: bool

    @classmethod
    def over(
        cls,
        geometry: SeriesGeometry,
        spacing_mm: tuple[float, float, float],
        orientation: str = "LPS",
        *,
        fill: bool = False,
    ) -> Self:
        """Lay the smallest grid of `spacing_mm` (z, y, x of the network) over the whole scan, centred on it.

        Being centred, it meets the same anatomy in the same voxels whichever way the series is stored.

        Args:
            geometry: of the scan.
            spacing_mm: of the grid.
            orientation: where the network's x, y and z grow to, in letters of the patient's directions.
            fill: end exactly where the scan ends, with a spacing that is only nearly the one asked for.

        Raises:
            SeriesRefused: ORIENTATION_UNSUPPORTED if the axes are far from the patient's.
        """
        series_axes, lps_reversed = _closest_lps(geometry)
        turned = [letter != lps for letter, lps in zip(reversed(orientation), "SPL", strict=True)]
        z_back, y_back, x_back = (back != turn for back, turn in zip(lps_reversed, turned, strict=True))
        ct_centres_mm = _ct_centres_mm(geometry)
        spacings_mm = [spacing_mm[series_axes.index(axis)] for axis in range(3)]
        shear_mm = _shear_mm(geometry)
        reach_mm = [(0.0, 0.0), *((shifts.min(), shifts.max()) for shifts in shear_mm.T)]
        z_mm, y_mm, x_mm = (
            _centred((centres[0] + low, centres[-1] + high), ct_spacing_mm, axis_spacing_mm, fill=fill)
            for centres, (low, high), ct_spacing_mm, axis_spacing_mm in zip(
                ct_centres_mm, reach_mm, geometry.spacing_mm, spacings_mm, strict=True
            )
        )
        back = (z_back, y_back, x_back)
        return cls(ct_centres_mm, shear_mm, (z_mm, y_mm, x_mm), series_axes, back, lps_reversed[2])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels of this grid along the series axes (z, y, x)."""
        z_mm, y_mm, x_mm = self.centres_mm
        return len(z_mm), len(y_mm), len(x_mm)

    @property
    def ct_shape(self) -> tuple[int, int, int]:
        """Voxels of the CT along the series axes (z, y, x)."""
        z_mm, y_mm, x_mm = self.ct_centres_mm
        return len(z_mm), len(y_mm), len(x_mm)

    @property
    def ct_spacing_mm(self) -> tuple[float, float, float]:
        """Mean distance between CT voxels along the series axes; a single slice is as thick as a voxel of this grid."""
        z_mm, y_mm, x_mm = (
            float((there[-1] - there[0]) / (len(there) - 1))
            if len(there) > 1
            else float(np.diff(here[:2]).sum() or 1.0)
            for there, here in zip(self.ct_centres_mm, self.centres_mm, strict=True)
        )
        return z_mm, y_mm, x_mm

    @property
    def is_sheared(self) -> bool:
        """Whether the slices of the CT are shifted against each other in their planes."""
        return bool(self.shear_mm.any())

    def ct_rows_and_columns_mm(self, slice_index: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Voxel centres of one slice of the CT along the series axes y and x."""
        along_y_mm, along_x_mm = self.shear_mm[slice_index]
        return self.ct_centres_mm[1] + along_y_mm, self.ct_centres_mm[2] + along_x_mm

    @property
    def left_right_axis(self) -> int:
        """The series axis that runs between the patient's right and left."""
        return self.series_axes[2]

    def cropped(self, box: Box) -> Self:
        """Keep only the voxels of a box, given along the series axes."""
        z_mm, y_mm, x_mm = (centres[side] for centres, side in zip(self.centres_mm, box, strict=True))
        return replace(self, centres_mm=(z_mm, y_mm, x_mm))

    def to_network(self, array: Array, xp: Any) -> Array:
        """Turn the last three axes of an array on this grid from the series' to the network's (z, y, x)."""
        first = array.ndim - 3
        turned = xp.permute_dims(array, (*range(first), *(first + axis for axis in self.series_axes)))
        flips = self._flips(first)
        return xp.flip(turned, axis=flips) if flips else turned

    def to_series(self, array: Array, xp: Any) -> Array:
        """Turn the last three axes of an array on this grid from the network's (z, y, x) to the series'."""
        first = array.ndim - 3
        flips = self._flips(first)
        turned = xp.flip(array, axis=flips) if flips else array
        return xp.permute_dims(turned, (*range(first), *(first + self.series_axes.index(axis) for axis in range(3))))

    def in_series_axes(self, sides: Sequence[T]) -> tuple[T, T, T]:
        """Order what is given for each of the network's axes (z, y, x) by the series' axes."""
        z, y, x = (sides[self.series_axes.index(axis)] for axis in range(3))
        return z, y, x

    def _flips(self, first: int) -> tuple[int, ...]:
        return tuple(first + axis for axis in range(3) if self.reversed_axes[axis])


def enclosing(boxes: list[Box]) -> Box:
    """Return the smallest box that holds all boxes."""
    z, y, x = (
        slice(min(side.start for side in sides), max(side.stop for side in sides)) for sides in zip(*boxes, strict=True)
    )
    return z, y, x


def _closest_lps(geometry: SeriesGeometry) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    # rows: the patient axes (z, y, x); columns: the series axes (z, y, x)
    cosines = geometry.directions[:, ::-1].T
    rows = np.arange(3)
    series_axes = max(itertools.permutations(range(3)), key=lambda order: np.abs(cosines[rows, order]).sum())
    chosen = cosines[rows, series_axes]
    if np.abs(chosen).min() < MIN_AXIS_COSINE:
        turned = float(np.degrees(np.arccos(np.abs(chosen).min())))
        raise SeriesRefused(
            Reason.ORIENTATION_UNSUPPORTED,
            f"the images are turned by {turned:.0f} degrees from the patient's axes, more than "
            f"{np.degrees(np.arccos(MIN_AXIS_COSINE)):.0f}; send an unrotated reconstruction",
        )
    z_axis, y_axis, x_axis = series_axes
    return (z_axis, y_axis, x_axis), (bool(chosen[0] < 0), bool(chosen[1] < 0), bool(chosen[2] < 0))


def _ct_centres_mm(geometry: SeriesGeometry) -> Centres:
    # Slices lie where each one says; rows and columns count from the first voxel.
    row_spacing_mm, column_spacing_mm = geometry.pixel_spacing_mm
    return (
        np.asarray(geometry.positions_mm @ np.asarray(geometry.normal), np.float64),
        np.arange(geometry.rows, dtype=np.float64) * row_spacing_mm,
        np.arange(geometry.columns, dtype=np.float64) * column_spacing_mm,
    )


def _shear_mm(geometry: SeriesGeometry) -> NDArray[np.float64]:
    """How far each slice is shifted in its plane; nothing where it is no more than rounding."""
    shear_mm = np.asarray(geometry.shear, np.float64)
    return shear_mm if np.ptp(shear_mm, axis=0).max() > SHEAR_FROM_MM else np.zeros_like(shear_mm)


def _centred(
    ends_mm: tuple[float, float], ct_spacing_mm: float, spacing_mm: float, *, fill: bool
) -> NDArray[np.float64]:
    first_mm, last_mm = ends_mm
    extent_mm = last_mm - first_mm + ct_spacing_mm
    if fill:
        # Positions in mm are rounded; a half must stay one, which goes to the even number as in nnU-Net.
        count = max(1, round(round(extent_mm / spacing_mm, 6)))
        spacing_mm = extent_mm / count
    else:
        count = max(1, int(np.ceil(extent_mm / spacing_mm - 1e-6)))
    middle_mm = (first_mm + last_mm) / 2
    return np.asarray(middle_mm + (np.arange(count) - (count - 1) / 2) * spacing_mm)
