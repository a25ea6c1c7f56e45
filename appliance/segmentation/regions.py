"""Unions, intersections and differences of regions, in boxes of one grid.

A region is looked at as signed certainty: how sure a voxel is inside, or with a minus outside. Then the greater of two
is their union and the lesser their intersection, and each voxel keeps the certainty of the region that decides it. A
region of no known certainty is sure everywhere, so that its contours stay half-way between voxels.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from appliance.dicom.roi import RoiMask
from appliance.segmentation.working_grid import Box, enclosing

SURE = 255
"""The highest certainty."""

SignedPlane: TypeAlias = NDArray[np.int16]
Shape: TypeAlias = tuple[int, int, int]


def nothing(name: str) -> RoiMask:
    """Return a region without voxels."""
    return RoiMask(name, (slice(0, 0), slice(0, 0), slice(0, 0)), np.zeros((0, 0, 0), np.bool_))


def renamed(mask: RoiMask, name: str) -> RoiMask:
    """Return the same region under another name."""
    return RoiMask(name, mask.box, mask.voxels, mask.certainty)


def union(name: str, masks: Sequence[RoiMask], shape: Shape) -> RoiMask:
    """Return what lies in any of some regions of a grid of `shape` (z, y, x)."""
    return _combined(name, masks, shape, np.maximum)


def intersection(name: str, masks: Sequence[RoiMask], shape: Shape) -> RoiMask:
    """Return what lies in all of some regions of a grid of `shape` (z, y, x)."""
    return _combined(name, masks, shape, np.minimum)


def difference(mask: RoiMask, others: Sequence[RoiMask], shape: Shape) -> RoiMask:
    """Return what lies in a region of a grid of `shape` (z, y, x) and in none of the others."""

    def without(first: SignedPlane, second: SignedPlane) -> SignedPlane:
        return np.minimum(first, -second)

    return _combined(mask.name, [mask, *others], shape, without)


def signed_certainty(inside: NDArray[np.bool_], certainty: NDArray[np.floating]) -> SignedPlane:
    """Return certainties, 1 as the highest, with the signs of their sides: 1 to 255, or with a minus; never 0."""
    whole = np.rint(certainty * np.float32(SURE)).clip(1, SURE).astype(np.int16)
    return np.asarray(np.where(inside, whole, -whole))


def region(name: str, box: Box, planes: Iterable[SignedPlane], *, with_certainty: bool = True) -> RoiMask:
    """Make a region from the signed certainties of each slice of a box, one slice at a time.

    The result's box is no larger than it needs to be; with certainty it holds the neighbours outside in each slice,
    where the given box does.
    """
    voxels = np.zeros([side.stop - side.start for side in box], np.bool_)
    certainty = np.full(voxels.shape, SURE, np.uint8) if with_certainty else None
    for index, plane in enumerate(planes):
        np.greater(plane, 0, out=voxels[index])
        if certainty is not None:
            np.copyto(certainty[index], np.abs(plane), casting="unsafe")
    return cropped(name, box, voxels, certainty)


def cropped(name: str, box: Box, voxels: NDArray[np.bool_], certainty: NDArray[np.uint8] | None) -> RoiMask:
    """Make a region of what is True in a box; with certainty its neighbours in each slice stay with it."""
    z, *sides = RoiMask.from_volume(name, voxels).box
    if not z.stop:
        return nothing(name)
    spare = 0 if certainty is None else 1
    y, x = (
        slice(max(0, side.start - spare), min(length, side.stop + spare))
        for side, length in zip(sides, voxels.shape[1:], strict=True)
    )
    sure = None if certainty is None else np.ascontiguousarray(certainty[z, y, x])
    mask = RoiMask(name, (z, y, x), np.ascontiguousarray(voxels[z, y, x]), sure)
    return mask.moved([side.start for side in box])


def _combined(
    name: str, masks: Sequence[RoiMask], shape: Shape, together: Callable[[SignedPlane, SignedPlane], SignedPlane]
) -> RoiMask:
    if len(masks) == 1:
        return renamed(masks[0], name)
    filled = [mask for mask in masks if not mask.is_empty]
    # a difference lies within its first region; so does an intersection, and a union lies around them all
    around = filled if together is np.maximum else masks[:1]
    if not around or any(mask.is_empty for mask in around):
        return nothing(name)
    box = _with_neighbours(enclosing([mask.box for mask in around]), shape)
    planes = (
        reduce(together, (_signed(mask, index, box) for mask in masks)) for index in range(box[0].start, box[0].stop)
    )
    return region(name, box, planes, with_certainty=any(mask.certainty is not None for mask in masks))


def _with_neighbours(box: Box, shape: Shape) -> Box:
    z, *sides = box
    y, x = (
        slice(max(0, side.start - 1), min(length, side.stop + 1)) for side, length in zip(sides, shape[1:], strict=True)
    )
    return z, y, x


def _signed(mask: RoiMask, index: int, box: Box) -> SignedPlane:
    """The signed certainty of a region in one slice of the grid, within the rows and columns of a box."""
    rows, columns = box[1], box[2]
    plane = np.full((rows.stop - rows.start, columns.stop - columns.start), -SURE, np.int16)
    z, *sides = mask.box
    if not z.start <= index < z.stop:
        return plane
    shared = [
        slice(max(own.start, side.start), min(own.stop, side.stop))
        for own, side in zip(sides, (rows, columns), strict=True)
    ]
    if any(side.start >= side.stop for side in shared):
        return plane
    own = index - z.start, *(slice(s.start - o.start, s.stop - o.start) for s, o in zip(shared, sides, strict=True))
    sure = np.int16(SURE) if mask.certainty is None else mask.certainty[own].astype(np.int16)
    y, x = (slice(s.start - o.start, s.stop - o.start) for s, o in zip(shared, (rows, columns), strict=True))
    plane[y, x] = np.where(mask.voxels[own], sure, -sure)
    return plane
