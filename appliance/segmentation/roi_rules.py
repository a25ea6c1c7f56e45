"""From decided classes to ROIs: unions, sides of the midline, smoothing, connected parts, holes, shared slices."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appliance.dicom.roi import RoiMask
from appliance.segmentation.manifest import Manifest, RoiRule
from appliance.segmentation.neighbours import apart
from appliance.segmentation.parts import fill_axial_holes, fill_holes, keep_parts
from appliance.segmentation.regions import SURE, cropped
from appliance.segmentation.smoothing import smoothed
from appliance.segmentation.working_grid import Box, WorkingGrid, enclosing

ROUNDING_MM = 1e-6
"""What sums of positions may be off, so that a voxel on the midline is always on the same side of it."""


@dataclass(frozen=True, eq=False)
class ClassLabels:
    """The decided class of each CT voxel.

    Attributes:
        voxels: class numbers, uint8 (z, y, x) in the series' axes.
        certainty: by how much each class leads the next, 1 to 255 (z, y, x).
        boxes: for each class number that may occur a box that holds all its voxels.
    """

    voxels: NDArray[np.uint8]
    certainty: NDArray[np.uint8]
    boxes: dict[int, Box]

    def union(self, numbers: Iterable[int]) -> tuple[Box, NDArray[np.bool_]] | None:
        """Return where any of these classes is, and its box; None if they can be nowhere."""
        present = [number for number in numbers if number in self.boxes]
        if not present:
            return None
        box = enclosing([self.boxes[number] for number in present])
        within = self.voxels[box]
        mask = within == present[0]
        for number in present[1:]:
            mask |= within == number
        return box, mask


def apply_rules(labels: ClassLabels, grid: WorkingGrid, manifest: Manifest) -> list[RoiMask]:
    """Make each ROI of the manifest; one that holds no voxel is left out.

    A sided ROI is also left out where nothing marks the midline: which side it is on cannot be told.

    The rules hold in this order: for each ROI the union of its classes, its side, smoothing, which parts are kept, and
    its holes; then the slices that two of them may not share, as the manifest lists them. Rules may remove all of a
    ROI; it is then not found, never empty.
    """
    made = (_make_roi(roi, labels, grid, manifest) for roi in manifest.rois)
    found = {mask.name: mask for mask in made if mask is not None and not mask.is_empty}
    parted = apart(found, manifest.slice_exclusions, grid)
    return [parted[roi.name] for roi in manifest.rois if roi.name in parted]


def midline_mm(roi: RoiRule, labels: ClassLabels, grid: WorkingGrid, manifest: Manifest) -> float | None:
    """Where a sided ROI's side begins, along the series axis that runs between left and right; None if nothing tells.

    It is the mean position of the voxels that mark it.
    """
    marks = labels.union(manifest.numbers(manifest.midline_classes(roi)))
    if marks is None or not marks[1].any():
        return None
    box, voxels = marks
    axis = grid.left_right_axis
    counts = np.count_nonzero(voxels, axis=tuple({0, 1, 2} - {axis}))
    return float(np.average(grid.ct_centres_mm[axis][box[axis]], weights=counts))


def _make_roi(roi: RoiRule, labels: ClassLabels, grid: WorkingGrid, manifest: Manifest) -> RoiMask | None:
    found = labels.union(manifest.numbers(roi.classes))
    if found is None:
        return None
    box, voxels = found
    if roi.side is not None:
        middle_mm = midline_mm(roi, labels, grid, manifest)
        if middle_mm is None:
            return None
        on_its_side = on_side(grid.ct_centres_mm[grid.left_right_axis][box[grid.left_right_axis]], middle_mm, roi, grid)
        np.moveaxis(voxels, grid.left_right_axis, -1)[...] &= on_its_side
    if roi.smooth_mm > 0:
        smooth = smoothed(RoiMask(roi.name, box, voxels), labels.certainty, grid.ct_centres_mm, roi.smooth_mm)
        kept = _whole(smooth.voxels, roi)
        certainty = smooth.certainty
        if certainty is not None:
            certainty = np.where(kept == smooth.voxels, certainty, np.uint8(SURE))
        return cropped(roi.name, smooth.box, kept, certainty)
    mask = RoiMask.from_volume(roi.name, _whole(voxels, roi)).moved([side.start for side in box])
    return mask.with_certainty(labels.certainty)


def on_side(positions_mm: NDArray[np.float64], middle_mm: float, roi: RoiRule, grid: WorkingGrid) -> NDArray[np.bool_]:
    """Tell which positions along the axis between left and right lie on a ROI's side of the midline.

    Those on the midline count as the series' first half.
    """
    upper = positions_mm > middle_mm + ROUNDING_MM
    left = ~upper if grid.left_is_descending else upper
    return left if roi.side == "left" else ~left


def _whole(voxels: NDArray[np.bool_], roi: RoiRule) -> NDArray[np.bool_]:
    """The parts of a ROI that are kept, with their holes filled."""
    kept = keep_parts(voxels, roi.keep)
    filling = {"none": None, "axial": fill_axial_holes, "all": fill_holes}[roi.fill_holes]
    return kept if filling is None or not kept.any() else filling(kept)
