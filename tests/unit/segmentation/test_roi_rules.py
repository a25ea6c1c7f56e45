from typing import Any

import numpy as np
import pytest

from appliance.segmentation.manifest import Manifest
from appliance.segmentation.roi_rules import ClassLabels, apply_rules, fill_axial_holes, keep_parts
from appliance.segmentation.working_grid import WorkingGrid
from tests.support.ct_volumes import PATIENT_POSITIONS, mask_positions_mm, series_grid, voxel_centres_mm

CLASSES = ("background", "body", "hip", "femur")


def manifest(*rois: dict[str, Any]) -> Manifest:
    channel = {"offset_hu": 0, "scale_hu": 1000, "clip": [-1, 2]}
    return Manifest.model_validate(
        {
            "format": 1,
            "name": "rules",
            "version": "1.0.0",
            "title": "Rules",
            "intended_use": "tests",
            "training": "none",
            "licence": "Apache-2.0",
            "input": {
                "spacing_mm": [4, 4, 4],
                "tile": [8, 8, 8],
                "overlap": 0.5,
                "orientation": "LPS",
                "channels": [channel],
            },
            "classes": CLASSES,
            "ensemble": "mean_softmax",
            "folds": [{"file": "fold_0.onnx", "sha256": "0" * 64}],
            "rois": rois,
            "limits": {"slice_spacing_mm": [0.5, 6], "min_extent_mm": [0, 0, 0]},
        }
    )


def labels_of(voxels: Any) -> ClassLabels:
    whole = tuple(slice(0, length) for length in voxels.shape)
    return ClassLabels(
        voxels, np.full_like(voxels, 255), {int(number): whole for number in np.unique(voxels) if number}
    )


def grid_of(shape: tuple[int, int, int]) -> WorkingGrid:
    return WorkingGrid.over(series_grid("HFS", shape, (3.0, 2.0, 2.0)), (4.0, 4.0, 4.0))


def parts_of_10_5_and_1() -> Any:
    mask = np.zeros((3, 8, 12), np.bool_)
    mask[0:1, 0:2, 0:5] = True
    mask[2, 4, 6:11] = True
    mask[2, 7, 0] = True
    return mask


@pytest.mark.parametrize(
    ("keep", "voxels"), [("all", 16), ("largest", 10), ("min_fraction:0.5", 15), ("min_fraction:0.05", 16)]
)
def test_only_the_named_parts_are_kept(keep: str, voxels: int) -> None:
    assert np.count_nonzero(keep_parts(parts_of_10_5_and_1(), keep)) == voxels


def test_of_two_equal_parts_the_largest_is_still_one() -> None:
    mask = np.zeros((1, 3, 9), np.bool_)
    mask[0, 1, [1, 2, 6, 7]] = True
    assert keep_parts(mask, "largest")[0, 1].tolist() == [False, True, True] + [False] * 6


def test_an_empty_mask_stays_empty() -> None:
    assert not keep_parts(np.zeros((2, 3, 4), np.bool_), "largest").any()


def test_holes_are_filled_where_their_slice_encloses_them() -> None:
    mask = np.zeros((3, 7, 7), np.bool_)
    mask[:, 1:6, 1:6] = True
    mask[:, 3, 3] = False  # a tunnel through all slices
    mask[1, 3, 3:7] = False  # open to the side in the middle slice
    filled = fill_axial_holes(mask)
    assert filled[0, 3, 3]
    assert filled[2, 3, 3]
    assert not filled[1, 3, 3:].any()
    assert np.count_nonzero(filled) == np.count_nonzero(mask) + 2


@pytest.mark.parametrize("gap", [np.s_[0, 2], np.s_[4, 2], np.s_[2, 0], np.s_[2, 4]])
def test_a_notch_in_any_edge_is_no_hole(gap: Any) -> None:
    mask = np.ones((1, 5, 5), np.bool_)
    mask[0][gap] = False
    assert np.array_equal(fill_axial_holes(mask), mask)


def test_a_roi_is_the_union_of_its_classes_cropped_to_its_box_and_the_voxels_around_it() -> None:
    voxels = np.zeros((6, 10, 10), np.uint8)
    voxels[2, 3:5, 4:6] = 2
    voxels[3, 4, 7] = 3
    voxels[5, 9, 9] = 1
    (mask,) = apply_rules(
        labels_of(voxels), grid_of((6, 10, 10)), manifest({"name": "Bone", "classes": ["hip", "femur"]})
    )
    assert mask.box == (slice(2, 4), slice(2, 6), slice(3, 9))
    assert np.array_equal(mask.in_grid((6, 10, 10)), voxels > 1)


def test_a_roi_that_holds_no_voxel_is_left_out() -> None:
    voxels = np.zeros((6, 10, 10), np.uint8)
    voxels[2, 3, 4] = 1
    rules = manifest({"name": "Femur", "classes": ["femur"]}, {"name": "External", "classes": ["body"]})
    assert [mask.name for mask in apply_rules(labels_of(voxels), grid_of((6, 10, 10)), rules)] == ["External"]


SIDED = (
    {"name": "Bone_Pelvic", "classes": ["hip"]},
    {"name": "Femur_L", "classes": ["femur"], "side": "left", "midline_from": ["Bone_Pelvic"]},
    {"name": "Femur_R", "classes": ["femur"], "side": "right", "midline_from": ["hip"]},
)


@pytest.mark.parametrize("position", PATIENT_POSITIONS)
def test_left_is_the_patients_left_in_every_position(position: str) -> None:
    geometry = series_grid(position, (6, 40, 40), (3.0, 4.0, 4.0), middle_mm=(13.0, 0.0, 0.0))
    x_mm = voxel_centres_mm(geometry)[..., 0]
    y_mm = voxel_centres_mm(geometry)[..., 1]
    voxels = np.zeros(geometry.shape, np.uint8)
    voxels[(np.abs(x_mm - 13) < 30) & (y_mm > 20)] = 2
    voxels[(np.abs(np.abs(x_mm - 13) - 45) < 12) & (y_mm < 0)] = 3
    grid = WorkingGrid.over(geometry, (4.0, 4.0, 4.0))
    masks = {mask.name: mask for mask in apply_rules(labels_of(voxels), grid, manifest(*SIDED))}
    assert mask_positions_mm(masks["Femur_L"], geometry)[:, 0].min() > 13
    assert mask_positions_mm(masks["Femur_R"], geometry)[:, 0].max() < 13
    both = np.count_nonzero(masks["Femur_L"].voxels) + np.count_nonzero(masks["Femur_R"].voxels)
    assert both == np.count_nonzero(voxels == 3)


def test_without_a_midline_no_side_is_guessed() -> None:
    voxels = np.zeros((6, 10, 10), np.uint8)
    voxels[2, 3, 4] = 3
    assert apply_rules(labels_of(voxels), grid_of((6, 10, 10)), manifest(*SIDED)) == []


def test_a_side_without_its_organ_is_left_out() -> None:
    voxels = np.zeros((6, 10, 10), np.uint8)
    voxels[2, 5, 3:7] = 2
    voxels[2, 3, 8] = 3
    names = [mask.name for mask in apply_rules(labels_of(voxels), grid_of((6, 10, 10)), manifest(*SIDED))]
    assert names == ["Bone_Pelvic", "Femur_L"]
