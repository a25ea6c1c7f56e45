"""Rules between structures: slices that two may not share, and whether they touch.

Head and feet are the patient's, whichever way the series runs.
"""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np

from appliance.dicom.roi import RoiMask
from appliance.segmentation.manifest import SliceExclusion
from appliance.segmentation.regions import SURE, cropped, union
from appliance.segmentation.working_grid import WorkingGrid


def apart(masks: Mapping[str, RoiMask], rules: Sequence[SliceExclusion], grid: WorkingGrid) -> dict[str, RoiMask]:
    """Part structures that never share an axial slice, as InnerEye's `slice_exclusion_rules` do.

    From the lowest slice of the higher structure to the highest slice of the lower one, all voxels of either go to
    the one that dominates. Rules hold one after the other. A structure of which nothing is left is not in the result.

    Args:
        masks: what was found, by name, on the CT's grid; not empty.
        rules: pairs of names; one whose structures were not both found does nothing.
        grid: tells where the patient's head is.
    """
    axis, to_feet = grid.series_axes[0], grid.reversed_axes[0]
    parted = dict(masks)
    for rule in rules:
        higher, lower = parted.get(rule.higher), parted.get(rule.lower)
        if higher is None or lower is None:
            continue
        (higher_first, higher_last), (lower_first, lower_last) = _extent(higher, axis), _extent(lower, axis)
        first, last = (lower_first, higher_last) if to_feet else (higher_first, lower_last)
        if first > last:
            continue
        winner, loser = (higher, lower) if rule.higher_dominates else (lower, higher)
        given = _only_slices(loser, axis, first, last, within=True)
        parted[winner.name] = union(winner.name, [winner, given], grid.ct_shape)
        parted[loser.name] = _only_slices(loser, axis, first, last, within=False)
        if parted[loser.name].is_empty:
            del parted[loser.name]
    return parted


def touching(first: RoiMask, second: RoiMask) -> bool:
    """Tell whether two regions of one grid share a voxel, or hold two voxels that share a face."""
    shifts = [(0, 0, 0), *(shift for shift in product((-1, 0, 1), repeat=3) if sum(map(abs, shift)) == 1)]
    return any(_share_voxels(first, second.moved(shift)) for shift in shifts)


def _share_voxels(first: RoiMask, second: RoiMask) -> bool:
    shared = [
        slice(max(one.start, other.start), min(one.stop, other.stop))
        for one, other in zip(first.box, second.box, strict=True)
    ]
    if any(side.start >= side.stop for side in shared):
        return False
    one, other = (
        mask.voxels[tuple(slice(s.start - o.start, s.stop - o.start) for s, o in zip(shared, mask.box, strict=True))]
        for mask in (first, second)
    )
    return bool((one & other).any())


def _extent(mask: RoiMask, axis: int) -> tuple[int, int]:
    """First and last index of a region along an axis of the grid."""
    filled = np.flatnonzero(mask.voxels.any(axis=tuple({0, 1, 2} - {axis}))) + mask.box[axis].start
    return int(filled[0]), int(filled[-1])


def _only_slices(mask: RoiMask, axis: int, first: int, last: int, *, within: bool) -> RoiMask:
    """The part of a region with an index from first to last along an axis, or all but that; outside for sure there."""
    index = np.arange(mask.box[axis].start, mask.box[axis].stop)
    kept = ((index >= first) & (index <= last)) == within
    shape = [1, 1, 1]
    shape[axis] = len(kept)
    there = kept.reshape(shape)
    certainty = None if mask.certainty is None else np.where(there, mask.certainty, np.uint8(SURE))
    return cropped(mask.name, mask.box, mask.voxels & there, certainty)
