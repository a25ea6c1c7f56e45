"""CT volume to network input: crop to the body, resample, normalise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from appliance.dicom.ct_volume import CtVolume
from appliance.segmentation.manifest import Channel, NetworkInput
from appliance.segmentation.resample import area_weights, cubic_weights, nearest_weights, separate_axis
from appliance.segmentation.sliding_window import Tile
from appliance.segmentation.working_grid import Box, WorkingGrid, enclosing

AIR_HU = -1000.0
"""What lies outside the scan, and the least value inside: scanners mark outside the field of view with less."""

TISSUE_HU = -850.0
"""A tile without any voxel above this holds air alone, not even lung; it is background without asking."""

BODY_HU = -300
"""Skin, fat and denser is above; air, clothes and most of the mattress below."""

CROP_MARGIN_MM = 20.0
"""Air kept around the body; several working voxels, so no body is lost."""

MIN_PART_FRACTION = 0.01
"""Parts smaller than this fraction of the largest one are couch, wires or noise; an arm is larger."""


@dataclass(frozen=True, eq=False)
class WorkingVolume:
    """A CT on the network's grid, along the series axes.

    Attributes:
        grid: where its voxels are.
        network_input: how the network wants them.
        values: float32 HU (z, y, x), never below AIR_HU, of which channels are made tile by tile; or the channels
            (channels, z, y, x), where they had to be made before resampling.
    """

    grid: WorkingGrid
    network_input: NetworkInput
    values: NDArray[np.float32]

    def is_air(self, box: Box) -> bool:
        """Whether a box holds no tissue, not even lung; of channels that cannot be told."""
        return self.values.ndim == 3 and bool(self.values[box].max() <= TISSUE_HU)

    def channels(self, tile: Tile) -> NDArray[np.float32]:
        """The network's input for one tile (channels, z, y, x), in the network's axes and of its full size."""
        wanted, channels = self.network_input, self.network_input.channels
        shape = self.grid.in_series_axes(wanted.tile)
        made = self.values[..., *tile.box]
        if made.ndim == 3:
            made = normalise(made, channels)
        if made.shape[1:] != shape:
            air = normalise(np.full((1, 1, 1), AIR_HU, np.float32), channels)
            piece = np.zeros((len(channels), *shape), np.float32)
            if wanted.padding == "air":
                piece += air
            piece[:, *tile.inset] = made
            made = piece
        return np.ascontiguousarray(self.grid.to_network(made, np))


def to_working_grid(volume: CtVolume, network_input: NetworkInput) -> WorkingVolume:
    """Resample a CT to the network's grid, and crop it to the body where the model wants that.

    The grid is anchored to the whole scan and cropped only afterwards, so that neither a voxel's value nor its
    place depends on the crop, and the crop does not depend on how the series is stored.

    Raises:
        SeriesRefused: ORIENTATION_UNSUPPORTED.
    """
    cubic = network_input.resampling == "cubic"
    grid = WorkingGrid.over(volume.geometry, network_input.spacing_mm, network_input.orientation, fill=cubic)
    if cubic:
        return WorkingVolume(grid, network_input, _by_splines(volume, grid, network_input))
    spacings_mm = grid.in_series_axes(network_input.spacing_mm)
    hu = _by_areas(volume, grid, spacings_mm)
    if network_input.crop == "whole":
        return WorkingVolume(grid, network_input, hu)
    box = _body_box(hu, [CROP_MARGIN_MM / axis_spacing_mm for axis_spacing_mm in spacings_mm])
    return WorkingVolume(grid.cropped(box), network_input, np.ascontiguousarray(hu[box]))


def normalise(hu: NDArray[np.float32], channels: Sequence[Channel]) -> NDArray[np.float32]:
    """Turn HU (z, y, x) into the network's channels (channels, z, y, x)."""
    return np.stack(
        [
            np.clip((hu - np.float32(channel.offset_hu)) / np.float32(channel.scale_hu), *channel.clip)
            for channel in channels
        ]
    ).astype(np.float32, copy=False)


def _by_areas(volume: CtVolume, grid: WorkingGrid, spacings_mm: tuple[float, float, float]) -> NDArray[np.float32]:
    """Hounsfield units as means over the working voxels; one slice of the CT at a time is held as float."""

    def weights(axis: int, ct_centres_mm: NDArray[np.float64]) -> NDArray[np.float32]:
        return area_weights(ct_centres_mm, grid.centres_mm[axis], spacings_mm[axis]).astype(np.float32)

    planes = np.empty((len(volume.hu), *grid.shape[1:]), np.float32)
    for index, (plane, ct_slice) in enumerate(zip(planes, volume.hu, strict=True)):
        if not index or grid.is_sheared:
            rows_mm, columns_mm = grid.ct_rows_and_columns_mm(index)
            over_y, over_x = weights(1, rows_mm), weights(2, columns_mm)
        np.matmul(over_y @ np.maximum(ct_slice, np.float32(AIR_HU)), over_x.T, out=plane)
    return np.tensordot(weights(0, grid.ct_centres_mm[0]), planes, axes=1)


def _by_splines(volume: CtVolume, grid: WorkingGrid, network_input: NetworkInput) -> NDArray[np.float32]:
    """Channels (channels, z, y, x) as nnU-Net makes them: normalised first, then splines of order 3, then clipped.

    Along an axis that it resamples apart the nearest plane is taken, and each plane is clipped to its own range.
    """
    apart = separate_axis(grid.ct_spacing_mm, grid.in_series_axes(network_input.spacing_mm))
    backwards = grid.in_series_axes(grid.reversed_axes)

    def weights(axis: int, ct_centres_mm: NDArray[np.float64]) -> NDArray[np.float32]:
        if axis == apart:
            found = nearest_weights(ct_centres_mm, grid.centres_mm[axis], ties_up=not backwards[axis])
        else:
            found = cubic_weights(ct_centres_mm, grid.centres_mm[axis])
        return found.astype(np.float32)

    over_z = weights(0, grid.ct_centres_mm[0])
    values = np.empty((len(network_input.channels), *grid.shape), np.float32)
    planes = np.empty((len(volume.hu), *grid.shape[1:]), np.float32)
    for channel, resampled in zip(network_input.channels, values, strict=True):
        lows, highs = [], []
        for index, (plane, ct_slice) in enumerate(zip(planes, volume.hu, strict=True)):
            if not index or grid.is_sheared:
                rows_mm, columns_mm = grid.ct_rows_and_columns_mm(index)
                over_y, over_x = weights(1, rows_mm), weights(2, columns_mm)
            (normal,) = normalise(ct_slice.astype(np.float32), [channel])
            others = {1: 1, 2: 0}.get(-1 if apart is None else apart)  # all of the slice, unless an axis in it is apart
            lows.append(normal.min(axis=others))
            highs.append(normal.max(axis=others))
            np.matmul(over_y @ normal, over_x.T, out=plane)
        low, high = np.array(lows), np.array(highs)
        if apart is None:
            low, high = low.min(), high.max()
        else:
            along, shape = (over_z, over_y, over_x)[apart], [1, 1, 1]
            shape[apart] = -1
            if apart:
                low, high = low.min(axis=0), high.max(axis=0)
            low, high = (along @ low).reshape(shape), (along @ high).reshape(shape)
        np.clip(np.tensordot(over_z, planes, axes=1), low, high, out=resampled)
    return values


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
