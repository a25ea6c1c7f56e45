from typing import Any

import numpy as np
import pytest

from appliance.segmentation.manifest import Manifest
from appliance.segmentation.roi_rules import ClassLabels, apply_rules
from appliance.segmentation.working_grid import WorkingGrid
from tests.support.ct_volumes import PATIENT_POSITIONS, mask_positions_mm, series_grid, voxel_centres_mm

CLASSES = ("background", "body", "hip", "femur")


def manifest(*rois: dict[str, Any], **more: Any) -> Manifest:
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
            **more,
        }
    )


def labels_of(voxels: Any) -> ClassLabels:
    whole = tuple(slice(0, length) for length in voxels.shape)
    return ClassLabels(
        voxels, np.full_like(voxels, 255), {int(number): whole for number in np.unique(voxels) if number}
    )


def grid_of(shape: tuple[int, int, int]) -> WorkingGrid:
    return WorkingGrid.over(series_grid("HFS", shape, (3.0, 2.0, 2.0)), (4.0, 4.0, 4.0))


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


def test_smoothing_comes_before_parts_are_chosen_and_holes_after_them() -> None:
    voxels = np.zeros((9, 30, 30), np.uint8)
    voxels[2:7, 5:20, 5:14] = 2
    voxels[4, 12, 9] = 0  # a hole that smoothing closes
    voxels[2:7, 12, 14:20] = 2  # a bridge that smoothing cuts
    voxels[2:7, 8:17, 20:26] = 2
    rule = {"name": "Bone", "classes": ["hip"], "keep": "largest"}
    smooth = {"smooth_mm": 3.0}
    grid = grid_of((9, 30, 30))
    (plain,) = apply_rules(labels_of(voxels), grid, manifest(rule))
    (cut,) = apply_rules(labels_of(voxels), grid, manifest(rule | smooth))
    assert plain.in_grid((9, 30, 30))[:, :, 20:].any()
    assert not cut.in_grid((9, 30, 30))[:, :, 18:].any()
    assert cut.in_grid((9, 30, 30))[4, 12, 9]
    assert cut.certainty is not None
    assert cut.certainty.min() < 200, "contours follow the smoothed field"


def test_holes_in_space_are_filled_where_the_manifest_says_so() -> None:
    voxels = np.full((5, 9, 9), 2, np.uint8)
    voxels[2, 4, 4] = 0
    for rule, filled in (("none", False), ("all", True)):
        (mask,) = apply_rules(
            labels_of(voxels), grid_of((5, 9, 9)), manifest({"name": "Bone", "classes": ["hip"], "fill_holes": rule})
        )
        assert mask.in_grid((5, 9, 9))[2, 4, 4] == filled


def test_a_roi_of_which_rules_leave_nothing_is_not_found() -> None:
    voxels = np.zeros((6, 20, 20), np.uint8)
    voxels[2, 3, 4] = 2
    voxels[3:5, 2:18, 2:18] = 3
    rules = manifest({"name": "Speck", "classes": ["hip"], "smooth_mm": 5.0}, {"name": "Femur", "classes": ["femur"]})
    assert [mask.name for mask in apply_rules(labels_of(voxels), grid_of((6, 20, 20)), rules)] == ["Femur"]


def test_rois_are_parted_as_the_manifest_says_and_keep_its_order() -> None:
    voxels = np.zeros((9, 20, 20), np.uint8)
    voxels[3:8, 4:8, 4:8] = 2
    voxels[0:5, 10:14, 4:8] = 3
    rules = manifest(
        {"name": "Low", "classes": ["femur"]},
        {"name": "High", "classes": ["hip"]},
        slice_exclusions=[{"higher": "High", "lower": "Low", "higher_dominates": True}],
    )
    low, high = apply_rules(labels_of(voxels), grid_of((9, 20, 20)), rules)
    assert (low.name, low.in_grid((9, 20, 20)).any(axis=(1, 2)).tolist()) == ("Low", [True] * 3 + [False] * 6)
    assert high.in_grid((9, 20, 20))[3:5, 10:14, 4:8].all()
