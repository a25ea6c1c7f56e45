"""CT volume to network input: crop to the body, resample, normalise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from appliance.dicom.ct_volume import CtVolume
from appliance.dicom.geometry import SeriesGeometry
from appliance.errors import Reason, SeriesRefused
from appliance.segmentation.manifest import Channel, Manifest
from appliance.segmentation.resample import area_weights
from appliance.segmentation.working_grid import Box, WorkingGrid, enclosing

AIR_HU = -1000.0
"""What lies outside the scan, and the least value inside: scanners mark outside the field of view with less."""

BODY_HU = -300
"""Skin, fat and denser is above; air, clothes and most of the mattress below."""

CROP_MARGIN_MM = 20.0
"""Air kept around the body; several working voxels, so no body is lost."""

GAP_ROUNDING_MM = 0.05
"""What rounding of positions may add to a gap, or take from it."""

MIN_PART_FRACTION = 0.01
"""Parts smaller than this fraction of the largest one are couch, wires or noise; an arm is larger."""


@dataclass(frozen=True, eq=False)
class WorkingVolume:
    """A CT on the network's grid.

    Attributes:
        hu: float32 (z, y, x), LPS, never below AIR_HU.
        grid: where these voxels are.
    """

    hu: NDArray[np.float32]
    grid: WorkingGrid


def refuse_outside_limits(geometry: SeriesGeometry, manifest: Manifest) -> None:
    """Check that the scan is one that the model was made for.

    Raises:
        SeriesRefused: INPUT_OUTSIDE_MODEL_LIMITS.
    """
    low_mm, high_mm = manifest.limits.slice_spacing_mm
    gaps_mm = geometry.gaps_mm if len(geometry.positions_mm) > 1 else np.zeros(1)
    odd_mm = gaps_mm[(gaps_mm < low_mm - GAP_ROUNDING_MM) | (gaps_mm > high_mm + GAP_ROUNDING_MM)]
    if odd_mm.size:
        raise SeriesRefused(
            Reason.INPUT_OUTSIDE_MODEL_LIMITS,
            f"slices are {odd_mm[0]:.2f} mm apart; model {manifest.name} {manifest.version} "
            f"is for {low_mm:.2f} to {high_mm:.2f} mm",
        )
    rows_mm, columns_mm = (
        count * spacing_mm
        for count, spacing_mm in zip((geometry.rows, geometry.columns), geometry.pixel_spacing_mm, strict=True)
    )
    lengths_mm = (float(geometry.slice_thickness_mm.sum()), rows_mm, columns_mm)
    for axis, length_mm, least_mm in zip("zyx", lengths_mm, manifest.limits.min_extent_mm, strict=True):
        if length_mm < least_mm:
            raise SeriesRefused(
                Reason.INPUT_OUTSIDE_MODEL_LIMITS,
                f"the scan is {length_mm:.0f} mm long along {axis}; model {manifest.name} "
                f"{manifest.version} needs {least_mm:.0f} mm",
            )


def to_working_grid(volume: CtVolume, spacing_mm: tuple[float, float, float]) -> WorkingVolume:
    """Resample a CT to the working grid of `spacing_mm` (LPS z, y, x) and crop it to the body.

    The grid is anchored to the whole scan and cropped only afterwards, so that neither a voxel's value nor its
    place depends on the crop, and the crop does not depend on how the series is stored. One slice at a time is
    held as float.

    Raises:
        SeriesRefused: ORIENTATION_UNSUPPORTED.
    """
    grid = WorkingGrid.over(volume.geometry, spacing_mm)
    spacings_mm = [spacing_mm[grid.series_axes.index(axis)] for axis in range(3)]

    def weights(axis: int, ct_centres_mm: NDArray[np.float64]) -> NDArray[np.float32]:
        return area_weights(ct_centres_mm, grid.centres_mm[axis], spacings_mm[axis]).astype(np.float32)

    planes = np.empty((len(volume.hu), len(grid.centres_mm[1]), len(grid.centres_mm[2])), np.float32)
    for index, (plane, ct_slice) in enumerate(zip(planes, volume.hu, strict=True)):
        if not index or grid.is_sheared:
            rows_mm, columns_mm = grid.ct_rows_and_columns_mm(index)
            over_y, over_x = weights(1, rows_mm), weights(2, columns_mm)
        np.matmul(over_y @ np.maximum(ct_slice, np.float32(AIR_HU)), over_x.T, out=plane)
    hu = np.tensordot(weights(0, grid.ct_centres_mm[0]), planes, axes=1)
    box = _body_box(hu, [CROP_MARGIN_MM / axis_spacing_mm for axis_spacing_mm in spacings_mm])
    cropped = grid.cropped(box)
    return WorkingVolume(cropped.to_lps(hu[box]), cropped)


def normalise(hu: NDArray[np.float32], channels: Sequence[Channel]) -> NDArray[np.float32]:
    """Turn HU (z, y, x) into the network's channels (channels, z, y, x)."""
    return np.stack(
        [
            np.clip((hu - np.float32(channel.offset_hu)) / np.float32(channel.scale_hu), *channel.clip)
            for channel in channels
        ]
    ).astype(np.float32, copy=False)


def _body_box(hu: NDArray[np.float32], margins: Sequence[float]) -> Box:
    """Return the box of all parts that may be body, with margins in voxels; everything if there is none."""
    parts, count = ndimage.label(hu > BODY_HU)
    if not count:
        return slice(0, hu.shape[0]), slice(0, hu.shape[1]), slice(0, hu.shape[2])
    sizes = np.bincount(parts.ravel())[1:]
    boxes = zip(ndimage.find_objects(parts), sizes, strict=True)
    body = enclosing([box for box, size in boxes if size >= MIN_PART_FRACTION * sizes.max()])
    z, y, x = (
        slice(max(0, side.start - math.ceil(margin)), min(length, side.stop + math.ceil(margin)))
        for side, margin, length in zip(body, margins, hu.shape, strict=True)
    )
    return z, y, x
