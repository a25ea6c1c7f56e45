"""Regions smoothed by a Gaussian in millimetres, so that what a coarse working grid left behind is gone.

What is smoothed is the signed certainty of the region, not its voxels: the surface moves by parts of a voxel, and
contours run where the smoothed field is zero. Along the normal every slice counts at its own position; where the
slices are shifted against each other by a tilted gantry, that shift, a small part of any such width, is left out.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from appliance.dicom.roi import RoiMask
from appliance.segmentation.regions import SURE, SignedPlane, region, signed_certainty
from appliance.segmentation.working_grid import Box, Centres

REACH = 3.0
"""In standard deviations: what lies farther away than this does not count."""


def smoothed(mask: RoiMask, certainty: NDArray[np.uint8], centres_mm: Centres, smooth_mm: float) -> RoiMask:
    """Smooth a region; it may become empty. Nothing is known beyond the scan, so nothing is taken from there.

    Args:
        mask: the region.
        certainty: how sure each voxel of the whole grid is of its side, (z, y, x).
        centres_mm: voxel centres of the grid along (z, y, x).
        smooth_mm: standard deviation of the Gaussian.
    """
    if smooth_mm <= 0 or mask.is_empty:
        return mask
    box = _within_reach(mask.box, centres_mm, REACH * smooth_mm)
    rows_mm, columns_mm = (float(np.mean(np.diff(axis_mm))) if len(axis_mm) > 1 else 1.0 for axis_mm in centres_mm[1:])
    widths = smooth_mm / rows_mm, smooth_mm / columns_mm
    field = np.empty([side.stop - side.start for side in box], np.float32)
    inside = np.zeros(field.shape, np.bool_)
    inside[_relative(mask.box, box)] = mask.voxels
    for plane, voxels, sure in zip(field, inside, certainty[box], strict=True):
        signed = np.where(voxels, sure, -sure.astype(np.float32)).astype(np.float32)
        ndimage.gaussian_filter(signed, widths, output=plane, mode="nearest", truncate=REACH)
    return region(mask.name, box, _along_normal(field, centres_mm[0][box[0]], smooth_mm))


def _along_normal(
    field: NDArray[np.float32], slices_mm: NDArray[np.float64], smooth_mm: float
) -> Iterator[SignedPlane]:
    """The slices of a field (z, y, x), each the weighted mean of those around it, as signed certainty."""
    ends_mm = np.concatenate([slices_mm[:1], (slices_mm[1:] + slices_mm[:-1]) / 2, slices_mm[-1:]])
    thickness_mm = np.diff(ends_mm) if len(slices_mm) > 1 else np.ones(1)
    for position_mm in slices_mm:
        distance = (slices_mm - position_mm) / smooth_mm
        weights = np.where(np.abs(distance) <= REACH, np.exp(-0.5 * distance**2) * thickness_mm, 0.0)
        used = np.flatnonzero(weights)
        shares = (weights[used] / weights.sum()).astype(np.float32)
        plane = np.tensordot(shares, field[used[0] : used[-1] + 1], axes=1)
        yield signed_certainty(plane > 0, np.abs(plane) / SURE)


def _within_reach(box: Box, centres_mm: Centres, reach_mm: float) -> Box:
    """The box with everything that lies no farther from it."""
    z, y, x = (
        slice(
            int(np.searchsorted(axis_mm, axis_mm[side.start] - reach_mm)),
            int(np.searchsorted(axis_mm, axis_mm[side.stop - 1] + reach_mm, side="right")),
        )
        for side, axis_mm in zip(box, centres_mm, strict=True)
    )
    return z, y, x


def _relative(box: Box, to: Box) -> Box:
    z, y, x = (slice(side.start - first.start, side.stop - first.start) for side, first in zip(box, to, strict=True))
    return z, y, x
