"""From trained weights to a model package: ONNX folds that answer as torch does, digests and a manifest."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from appliance.training.classes import CLASSES
from appliance.training.config import TrainingConfig
from appliance.training.stage import State, build_network
from models.onnx_export import answering, compare, to_onnx

_LARGEST_LOGIT_DIFFERENCE = 1e-3
"""What rounding may change between torch and ONNX Runtime; above it the export is wrong."""
_LARGEST_SHARE_OF_CHANGED_LABELS = 1e-5
_LARGEST_FOLD_BYTES = 8_000_000


class ExportDiffers(Exception):
    """The exported network does not answer as the trained one does, or its file is too large to ship."""


def publish(config: TrainingConfig, folds: Sequence[State], folder: Path) -> None:
    """Write `fold_k.onnx` and `manifest.json` into the package folder; the card is written beside them by hand.

    Raises:
        ExportDiffers: a fold's logits or labels change by being exported, or its file is over 8 MB.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for number, state in enumerate(folds):
        path = folder / f"fold_{number}.onnx"
        network = build_network(config)
        network.load_state_dict(state)
        _export(network.eval(), config, path)
        entries.append({"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
    text = json.dumps(manifest(config, entries), indent=2, ensure_ascii=False)
    (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")


def manifest(config: TrainingConfig, folds: Sequence[dict[str, str]]) -> dict[str, Any]:
    """The package's description of itself, as plain JSON values."""
    network = config.network
    return {
        "format": 1,
        "name": config.name,
        "version": config.version,
        "title": "Pelvis demonstration: nine organs at risk and targets on planning CT",
        "intended_use": "Demonstration and testing of the appliance only. Not for clinical use.",
        "training": f"Synthetic phantoms only ({config.phantoms.count}); no patient data. See CARD.md.",
        "licence": "Apache-2.0",
        "input": {
            "spacing_mm": [network.spacing_mm] * 3,
            "tile": list(network.tile),
            "overlap": network.overlap,
            "orientation": "LPS",
            "channels": [channel.model_dump(mode="json") for channel in network.channels],
        },
        "classes": list(CLASSES),
        "ensemble": "mean_softmax",
        "folds": list(folds),
        "rois": _ROI_RULES,
        "limits": {"slice_spacing_mm": [0.5, 6.0], "min_extent_mm": [100.0, 200.0, 250.0]},
    }


_MIDLINE = ["hip", "sacrum"]
_ROI_RULES: list[dict[str, Any]] = [
    {"name": "External", "classes": list(CLASSES[1:]), "keep": "largest", "fill_holes": "axial"},
    {"name": "Bladder", "classes": ["Bladder"], "keep": "largest"},
    {"name": "Rectum", "classes": ["Rectum"], "keep": "largest"},
    {"name": "Prostate", "classes": ["Prostate"], "keep": "largest"},
    {"name": "Femur_L", "classes": ["femur"], "side": "left", "midline_from": _MIDLINE, "keep": "largest"},
    {"name": "Femur_R", "classes": ["femur"], "side": "right", "midline_from": _MIDLINE, "keep": "largest"},
    {"name": "Bone_Pelvic", "classes": ["hip"], "keep": "min_fraction:0.1"},
    {"name": "Sacrum", "classes": ["sacrum"], "keep": "largest"},
    {"name": "Bowel", "classes": ["Bowel"], "keep": "min_fraction:0.02"},
]


def _export(network: nn.Module, config: TrainingConfig, path: Path) -> None:
    tile = _trial_input(config)
    exported = to_onnx(network, (1, tile.shape[1], *config.network.tile))
    path.write_bytes(exported)
    found = compare(answering(network), exported, [tile])
    if found.largest_logit > _LARGEST_LOGIT_DIFFERENCE or found.changed_labels > _LARGEST_SHARE_OF_CHANGED_LABELS:
        raise ExportDiffers(f"{path.name}: the exported network differs by {found.largest_logit:.2e} in its logits")
    if len(exported) > _LARGEST_FOLD_BYTES:
        raise ExportDiffers(f"{path.name} has {len(exported)} bytes, at most {_LARGEST_FOLD_BYTES} may ship")


def _trial_input(config: TrainingConfig) -> npt.NDArray[np.float32]:
    """A tile (1, channels, z, y, x) of smooth random values over the input's whole range."""
    shape = (1, len(config.network.channels), *config.network.tile)
    return np.random.default_rng(config.seed).uniform(-1.2, 1.6, shape).astype(np.float32)
