"""Tiny real model packages, whose right answer is known from the HU alone."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save_model

from appliance.segmentation.manifest import Manifest

HU_PER_UNIT = 1000.0

BONE_ROIS: tuple[Mapping[str, Any], ...] = (
    {"name": "External", "classes": ["body", "bone"], "keep": "largest", "fill_holes": "axial"},
    {"name": "Bone_Pelvic", "classes": ["bone"], "keep": "min_fraction:0.1"},
    {
        "name": "Femur_L",
        "classes": ["bone"],
        "side": "left",
        "midline_from": ["Bone_Pelvic"],
        "keep": "largest",
    },
    {"name": "Femur_R", "classes": ["bone"], "side": "right", "midline_from": ["bone"], "keep": "largest"},
)
"""External, all bone, and its left and right half: the names of a pelvis on any CT that holds a body and bone."""

DENSE_ROIS: tuple[Mapping[str, Any], ...] = (
    {"name": "Bone_Pelvic", "classes": ["dense"]},
    {"name": "Other", "classes": ["body", "dense"]},
)
"""What a second model draws: bone again, in its own way, and all of the body, which overlaps with it."""


def make_threshold_package(
    folder: Path,
    *,
    name: str = "thresholds",
    thresholds_hu: Mapping[str, float] | None = None,
    rois: Sequence[Mapping[str, Any]] = BONE_ROIS,
    gain_per_hu: float = 0.02,
    fold_shifts_hu: Sequence[float] = (-10.0, 0.0, 10.0),
    tile: tuple[int, int, int] = (32, 64, 96),
    **network_input: Any,
) -> Path:
    """Write a model package whose networks tell classes apart by HU alone, and return its folder.

    Args:
        folder: where to write; made if absent.
        name: of the model, as its manifest has it.
        thresholds_hu: class name -> HU from which it wins, ascending; below the first there is background.
        rois: the manifest's ROI rules.
        gain_per_hu: how steeply a logit grows; small values make the softmax nearly linear in HU.
        fold_shifts_hu: one fold each, with its thresholds shifted by this much. Shifts that are symmetric about
            0 leave the mean of softmax at the thresholds themselves.
        tile: network input shape (z, y, x).
        network_input: replaces keys of the manifest's "input", such as spacing_mm or overlap.
    """
    thresholds_hu = thresholds_hu or {"body": -300.0, "bone": 250.0}
    folder.mkdir(parents=True, exist_ok=True)
    folds = []
    for index, shift_hu in enumerate(fold_shifts_hu):
        path = folder / f"fold_{index}.onnx"
        _save_network(path, np.asarray(list(thresholds_hu.values())) + shift_hu, gain_per_hu, tile)
        folds.append({"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
    manifest = {
        "format": 1,
        "name": name,
        "version": "1.0.0",
        "title": "Thresholds on HU",
        "intended_use": "tests; not for clinical use",
        "training": "none",
        "licence": "Apache-2.0",
        "input": {
            "spacing_mm": [4.0, 4.0, 4.0],
            "tile": list(tile),
            "overlap": 0.5,
            "orientation": "LPS",
            "channels": [{"offset_hu": 0.0, "scale_hu": HU_PER_UNIT, "clip": [-1.0, 2.0]}],
            **network_input,
        },
        "classes": ["background", *thresholds_hu],
        "ensemble": "mean_softmax",
        "folds": folds,
        "rois": list(rois),
        "limits": {"slice_spacing_mm": [0.5, 6.0], "min_extent_mm": [10.0, 10.0, 10.0]},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2))
    (folder / "CARD.md").write_text("# Thresholds on HU\n\nFor tests only.\n")
    return folder


def manifest_of_classes(classes: int, **replaced: Any) -> Manifest:
    """A manifest of so many classes, each of which is a ROI; `replaced` are its keys."""
    names = ["background", *(f"class_{number}" for number in range(1, classes))]
    given = {
        "format": 1,
        "name": "classes",
        "version": "1.0.0",
        "title": "Classes",
        "intended_use": "tests; not for clinical use",
        "training": "none",
        "licence": "Apache-2.0",
        "input": {
            "spacing_mm": [4.0, 4.0, 4.0],
            "tile": [8, 8, 8],
            "overlap": 0.5,
            "orientation": "LPS",
            "channels": [{"offset_hu": 0.0, "scale_hu": HU_PER_UNIT, "clip": [-1.0, 2.0]}],
        },
        "classes": names,
        "ensemble": "mean_softmax",
        "folds": [{"file": "fold_0.onnx", "sha256": "0" * 64}],
        "rois": [{"name": name, "classes": [name]} for name in names[1:]],
        "limits": {"slice_spacing_mm": [0.5, 6.0], "min_extent_mm": [10.0, 10.0, 10.0]},
    }
    return Manifest.model_validate(given | replaced)


def threshold_logits(hu: Any, thresholds_hu: Sequence[float], gain_per_hu: float) -> Any:
    """What such a network answers for HU values of any shape: logits, classes first."""
    hu = np.asarray(hu, np.float64)
    offsets = np.cumsum([0.0, *thresholds_hu])
    return np.stack([gain_per_hu * (number * hu - offset) for number, offset in enumerate(offsets)])


def _save_network(path: Path, thresholds_hu: Any, gain_per_hu: float, tile: tuple[int, int, int]) -> None:
    # Lines of growing slope: each next one wins from its threshold on.
    classes = len(thresholds_hu) + 1
    slopes = gain_per_hu * HU_PER_UNIT * np.arange(classes)
    biases = -gain_per_hu * np.cumsum([0.0, *thresholds_hu])
    graph = helper.make_graph(
        [helper.make_node("Conv", ["channels", "slopes", "biases"], ["logits"])],
        "thresholds",
        [helper.make_tensor_value_info("channels", TensorProto.FLOAT, [1, 1, *tile])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, classes, *tile])],
        [
            numpy_helper.from_array(slopes.astype(np.float32).reshape(classes, 1, 1, 1, 1), "slopes"),
            numpy_helper.from_array(biases.astype(np.float32), "biases"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    save_model(model, path)
