"""A CT series becomes one array of Hounsfield units."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appliance.dicom.ct_series import CtSeries
from appliance.dicom.ct_slice import CtSlice
from appliance.dicom.geometry import SeriesGeometry
from appliance.dicom.pixel_codecs import decode_pixels

_LOWEST, _HIGHEST = np.iinfo(np.int16).min, np.iinfo(np.int16).max


@dataclass(frozen=True, eq=False)
class CtVolume:
    """One CT on its own grid.

    Attributes:
        hu: Hounsfield units, int16, (z, y, x), slices ascending along the normal.
        geometry: where the voxels lie.
    """

    hu: NDArray[np.int16]
    geometry: SeriesGeometry

    def __post_init__(self) -> None:
        if self.hu.shape != self.geometry.shape:
            raise ValueError(f"values of shape {self.hu.shape} on a grid of shape {self.geometry.shape}")


def load_volume(series: CtSeries, on_slice: Callable[[int, int], None] | None = None) -> CtVolume:
    """Decode all slices of a series; memory holds the volume and one slice.

    Args:
        series: an assembled series, whose files are still where they were.
        on_slice: called after each slice with the number done and the number of all.

    Raises:
        SliceRefused: PIXELS_TRUNCATED or PIXELS_UNDECODABLE.
        OSError: a file cannot be read.
    """
    hu = np.empty(series.geometry.shape, dtype=np.int16)
    for index, one in enumerate(series.slices):
        hu[index] = _hounsfield_units(one)
        if on_slice is not None:
            on_slice(index + 1, len(series.slices))
    return CtVolume(hu, series.geometry)


def input_digest(series: CtSeries, volume: CtVolume) -> str:
    """Return the SHA-256 of what a model sees and what a result refers to, as 64 hexadecimal digits.

    It covers the SOP Instance UIDs, the geometry and the Hounsfield units in order of the slices, so it is the same
    for the same images in any transfer syntax and any order of arrival.
    """
    digest = hashlib.sha256()
    for uid in series.sop_instance_uids:
        digest.update(uid.encode() + b"\n")
    geometry = series.geometry
    placement = (geometry.row_direction, geometry.column_direction, geometry.pixel_spacing_mm)
    digest.update(repr((geometry.shape, *placement)).encode())
    digest.update(geometry.positions_mm.astype("<f8").tobytes())
    for image in volume.hu:
        digest.update(image.astype("<i2", copy=False).tobytes())
    return digest.hexdigest()


def same_image(first: CtSlice, second: CtSlice) -> bool:
    """Tell whether two slices are one image, whatever the transfer syntaxes: same names, place and Hounsfield units.

    Raises:
        SliceRefused: PIXELS_TRUNCATED or PIXELS_UNDECODABLE in either.
        OSError: a file cannot be read.
    """

    def names(one: CtSlice) -> tuple[object, ...]:
        return one.sop_instance_uid, one.series_instance_uid, one.frame_of_reference_uid, one.patient_key

    return (
        names(first) == names(second)
        and first.plane == second.plane
        and (first.rows, first.columns) == (second.rows, second.columns)
        and np.array_equal(_hounsfield_units(first), _hounsfield_units(second))
    )


def _hounsfield_units(one: CtSlice) -> NDArray[np.int16]:
    """Rescale one slice (PS3.3 §C.11.1.1.2), to the nearest whole number, kept within int16."""
    stored = decode_pixels(one.path, one.pixels)
    slope, intercept = one.rescale_slope, one.rescale_intercept
    if slope == 1.0 and intercept.is_integer():
        units = stored.astype(np.int32)
        units += int(intercept)
    else:
        units = np.rint(stored * slope + intercept).clip(_LOWEST, _HIGHEST).astype(np.int32)
    return units.clip(_LOWEST, _HIGHEST).astype(np.int16)
