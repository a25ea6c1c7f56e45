"""Connected parts of masks: which to keep, and the holes that they enclose."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from appliance.dicom.geometry import SeriesGeometry
from appliance.dicom.roi import RoiMask
from appliance.segmentation.regions import SURE, cropped
from appliance.settings import RoiChoice

Labels = NDArray[np.int32]

ROUNDING = 1e-9
"""A part may be smaller than its limit by this share, so that one of exactly that size is kept."""


def keep_parts(mask: NDArray[np.bool_], keep: str) -> NDArray[np.bool_]:
    """Keep the connected parts that a ROI's `keep` rule names; voxels (z, y, x) are connected by faces.

    The largest part stays whatever the rule, the first by slice, row and column of equally large ones.
    """
    if keep == "all":
        return mask
    parts, sizes = connected_parts(mask)
    if len(sizes) <= 2:
        return mask
    kept = np.zeros(len(sizes), np.bool_)
    if keep != "largest":
        measure, _, share = keep.partition(":")
        kept = sizes >= float(share) * (sizes.max() if measure == "min_fraction" else sizes.sum())
    kept[sizes.argmax()] = True
    return _only(parts, kept)


def limit_parts(mask: RoiMask, choice: RoiChoice, geometry: SeriesGeometry) -> RoiMask:
    """Leave out the parts of a region that a protocol does not want.

    First go regions of one slice (pixels joined by their sides) that are too small, then connected parts (voxels
    joined by their faces) that are too small, then all but the largest. So each limit holds for what is left. Of
    equally large parts the first by slice, row and column is kept. What is left out is outside for sure.

    Args:
        mask: the region; nothing may be left of it.
        choice: `min_area_mm2`, `min_part_cm3` and `largest_parts`.
        geometry: where the voxels lie; each slice is as thick as it reaches to its neighbours' halves.
    """
    voxels = mask.voxels
    pixel_mm2 = float(np.prod(geometry.pixel_spacing_mm))
    if choice.min_area_mm2 > 0:
        voxels = np.array([_large_regions(plane, choice.min_area_mm2 / pixel_mm2) for plane in voxels]).reshape(
            voxels.shape
        )
    if choice.min_part_cm3 > 0 or choice.largest_parts is not None:
        voxel_cm3 = geometry.slice_thickness_mm[mask.box[0]] * pixel_mm2 / 1000
        parts, sizes_cm3 = connected_parts(voxels, voxel_cm3)
        kept = sizes_cm3 >= choice.min_part_cm3 * (1 - ROUNDING)
        if choice.largest_parts is not None:
            kept[1 + np.argsort(-sizes_cm3[1:], kind="stable")[choice.largest_parts :]] = False
        voxels = _only(parts, kept)
    if voxels is mask.voxels or np.array_equal(voxels, mask.voxels):
        return mask
    certainty = mask.certainty
    if certainty is not None:
        certainty = np.where(mask.voxels & ~voxels, np.uint8(SURE), certainty)
    return cropped(mask.name, mask.box, voxels, certainty)


def connected_parts(mask: NDArray[np.bool_], voxel_sizes: ArrayLike = 1.0) -> tuple[Labels, NDArray[np.float64]]:
    """Number the parts of a mask (z, y, x) that are connected by faces.

    Args:
        mask: what to number.
        voxel_sizes: how much a voxel of each slice counts for.

    Returns:
        the number of each voxel's part, 0 outside; and the size of each part, index 0 being 0.
    """
    parts, count = ndimage.label(mask)
    sizes = np.zeros(count + 1)
    for plane, size in zip(parts, np.broadcast_to(voxel_sizes, len(parts)), strict=True):
        # one at a time, because counting widens what it reads to 8 bytes a voxel
        sizes += np.bincount(plane.ravel(), minlength=count + 1) * size
    sizes[0] = 0
    return parts, sizes


def fill_axial_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill what each slice of a mask (z, y, x) encloses; what reaches the edge of the array is outside."""
    filled = mask.copy()
    for plane in filled:
        gaps, count = ndimage.label(~plane)
        outside = np.zeros(count + 1, np.bool_)
        for edge in (gaps[0], gaps[-1], gaps[:, 0], gaps[:, -1]):
            outside[edge] = True
        outside[0] = False
        plane[...] = ~outside[gaps]
    return filled


def fill_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill what a mask (z, y, x) encloses in space; what reaches the edge of the array is outside."""
    return np.asarray(ndimage.binary_fill_holes(mask))


def _only(parts: Labels, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The voxels of some parts; `kept` says for each number whether to."""
    kept = kept.copy()
    kept[0] = False
    return np.array([kept[plane] for plane in parts], np.bool_).reshape(parts.shape)


def _large_regions(plane: NDArray[np.bool_], pixels: float) -> NDArray[np.bool_]:
    """The regions of one slice that have so many pixels, joined by their sides."""
    regions, count = ndimage.label(plane)
    sizes = np.bincount(regions.ravel(), minlength=count + 1)
    return np.asarray(_only(regions[np.newaxis], sizes >= pixels * (1 - ROUNDING))[0])
