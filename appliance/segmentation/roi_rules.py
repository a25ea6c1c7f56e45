"""From decided classes to ROIs: unions, sides of the midline, connected parts, holes."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appliance.dicom.roi import RoiMask
from appliance.segmentation.manifest import Manifest, RoiRule
from appliance.segmentation.parts import fill_axial_holes, keep_parts
from appliance.segmentation.working_grid import Box, WorkingGrid, enclosing


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
    """
    masks = (_make_roi(roi, labels, grid, manifest) for roi in manifest.rois)
    return [mask for mask in masks if mask is not None and not mask.is_empty]


def _make_roi(roi: RoiRule, labels: ClassLabels, grid: WorkingGrid, manifest: Manifest) -> RoiMask | None:
    found = labels.union(manifest.classes.index(name) for name in roi.classes)
    if found is None:
        return None
    box, mask = found
    if roi.side is not None:
        marks = labels.union(manifest.classes.index(name) for name in manifest.midline_classes(roi))
        if marks is None or not marks[1].any():
            return None
        _clear_other_side(mask, box, _midline(*marks, grid), grid, roi.side)
    mask = keep_parts(mask, roi.keep)
    if roi.fill_holes == "axial":
        mask = fill_axial_holes(mask)
    cropped = RoiMask.from_volume(roi.name, mask).moved([side.start for side in box])
    return cropped.with_certainty(labels.certainty)


def _midline(box: Box, marks: NDArray[np.bool_], grid: WorkingGrid) -> float:
    """Return the mean index of the marks along the series axis that runs between left and right."""
    axis = grid.left_right_axis
    counts = np.count_nonzero(marks, axis=tuple({0, 1, 2} - {axis}))
    return float(box[axis].start + np.average(np.arange(len(counts)), weights=counts))


def _clear_other_side(mask: NDArray[np.bool_], box: Box, midline: float, grid: WorkingGrid, side: str) -> None:
    """Clear, in place, what lies on the other side of the midline; voxels on it count as the series' first half."""
    axis = grid.left_right_axis
    upper = box[axis].start + np.arange(mask.shape[axis]) > midline
    left = ~upper if grid.left_is_descending else upper
    np.moveaxis(mask, axis, -1)[...] &= left if side == "left" else ~left
