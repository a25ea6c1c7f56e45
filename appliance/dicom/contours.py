"""Masks become contours; `rasterising.py` makes masks of contours again.

Contours run halfway between the centres of voxels inside and outside (marching squares on a mask), so no structure
shrinks, and no voxel centre lies on a contour: filling the contours by the even-odd rule gives the mask back, voxel
for voxel. Each contour lies in the plane of its own slice, by that slice's own position.
"""

from dataclasses import dataclass

import numpy as np

from appliance.dicom.contour_shaping import FARTHEST, STRAIGHT, simplify, smooth
from appliance.dicom.contour_tracing import Loops, corners_of, trace_loops
from appliance.dicom.geometry import Points, SeriesGeometry
from appliance.dicom.roi import RoiMask

SLAB = 32
"""Slices that are traced at once: enough for numpy to be fast, few enough to need little memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Contour:
    """One closed planar contour; its last point is joined to its first, which is not repeated.

    Attributes:
        slice_index: the slice whose plane holds it.
        points_mm: patient positions, shape (N, 3), at least three. About the slice normal, outer boundaries run
            anticlockwise and boundaries of holes clockwise.
    """

    slice_index: int
    points_mm: Points


@dataclass(frozen=True, slots=True)
class RoiContours:
    """All contours of one region, in ascending order of slices."""

    name: str
    contours: tuple[Contour, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """How the boundary of a region becomes contours.

    Attributes:
        keyhole: join each hole to the boundary around it by a channel of no width (PS3.3 §C.8.8.6.3), for readers that
            fill nested contours; otherwise a hole is a contour of its own within another.
        smooth_mm: smooth, moving no point farther than this.
        simplify_mm: leave out points, moving the contour no farther than this, nor than a pixel.
        max_points: most points of a contour; the slices around one that has more are simplified further, up to that.

    Neither lets a voxel change sides, whatever is asked for.
    """

    keyhole: bool = False
    smooth_mm: float = 0.0
    simplify_mm: float = 0.0
    max_points: int | None = None


PLAIN = Drawing()
"""Contours as they are, holes within boundaries."""


def trace(mask: RoiMask, geometry: SeriesGeometry, drawing: Drawing = PLAIN) -> RoiContours:
    """Outline a region on each slice.

    Contours run halfway between voxels or, where the region says how certain its voxels are, where two neighbours are
    equally certain. Voxels that touch by a corner only are outlined apart. Points on straight lines are left out.

    Args:
        mask: the region, which may touch the border of the grid.
        geometry: where the voxels lie.
        drawing: the form of the contours.
    """
    contours: list[Contour] = []
    in_grid = np.array([mask.box[2].start, mask.box[1].start])
    pixel_mm = min(geometry.pixel_spacing_mm)
    for first in range(0, len(mask.voxels), SLAB):
        slab = slice(first, first + SLAB)
        certainty = None if mask.certainty is None else mask.certainty[slab]
        loops = trace_loops(mask.voxels[slab], certainty, keyhole=drawing.keyhole)
        loops = _shaped(loops, drawing, pixel_mm, halfway=certainty is None)
        slices = loops.slice_indices + (mask.box[0].start + first)
        points_mm = geometry.to_patient_mm(np.repeat(slices, loops.lengths), loops.points + in_grid)
        pieces = np.split(points_mm, np.cumsum(loops.lengths)[:-1]) if len(slices) else []
        contours += map(Contour, slices.tolist(), pieces)
    return RoiContours(mask.name, tuple(contours))


def _shaped(traced: Loops, drawing: Drawing, pixel_mm: float, *, halfway: bool) -> Loops:
    """Smooth and simplify, in pixels."""
    smoothed = drawing.smooth_mm > 0.0
    if smoothed:
        traced = smooth(traced, drawing.smooth_mm / pixel_mm)
    in_steps = halfway and not smoothed
    limit = min(max(drawing.simplify_mm / pixel_mm, 0.0 if in_steps else STRAIGHT), FARTHEST)
    loops = simplify(traced, limit) if limit > 0.0 else traced
    while drawing.max_points and loops.lengths.max(initial=0) > drawing.max_points and limit < FARTHEST:
        limit = min(2 * limit + STRAIGHT, FARTHEST)
        loops = simplify(traced, limit)
    return corners_of(loops) if in_steps else loops
