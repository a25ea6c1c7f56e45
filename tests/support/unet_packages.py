"""Model packages with a real network of untrained weights, as ONNX and as safetensors; several classes win."""

import hashlib
import io
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import safetensors.torch
import torch
from torch import nn

from models.registry import build

SMALL: Mapping[str, Any] = {"channels": 1, "classes": 4, "first_features": 4, "levels": 2}
TILE = (8, 16, 16)


def make_unet_package(
    folder: Path,
    *,
    folds: int = 2,
    tile: tuple[int, int, int] = TILE,
    network: str = "unet3d",
    arguments: Mapping[str, Any] = SMALL,
    **replaced: Any,
) -> Path:
    """Write a package whose folds differ in their random weights alone, and return its folder; `replaced` are keys."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for number in range(folds):
        module = calibrated(seeded(network, arguments, number), (1, arguments["channels"], *tile))
        files = {f"fold_{number}.onnx": as_onnx(module, (1, arguments["channels"], *tile), arguments["classes"])}
        files[f"fold_{number}.safetensors"] = safetensors.torch.save(dict(module.state_dict()))
        for name, content in files.items():
            (folder / name).write_bytes(content)
        digests = [hashlib.sha256(content).hexdigest() for content in files.values()]
        entries.append(dict(zip(("file", "tensors"), files, strict=True)))
        entries[-1] |= dict(zip(("sha256", "tensors_sha256"), digests, strict=True))
    classes = ["background", *(f"organ_{number}" for number in range(1, arguments["classes"]))]
    manifest = {
        "format": 1,
        "name": "unet",
        "version": "1.0.0",
        "title": "Untrained U-Net",
        "intended_use": "tests; not for clinical use",
        "training": "none",
        "licence": "Apache-2.0",
        "input": {
            "spacing_mm": [8.0, 8.0, 8.0],
            "tile": list(tile),
            "overlap": 0.5,
            "orientation": "LPS",
            "channels": [{"offset_hu": 0.0, "scale_hu": 500.0, "clip": [-1.0, 1.0]}] * arguments["channels"],
        },
        "classes": classes,
        "network": {"name": network, "arguments": dict(arguments)},
        "ensemble": "mean_softmax",
        "folds": entries,
        "rois": [{"name": "Other", "classes": classes[1:2]}],
        "limits": {"slice_spacing_mm": [0.5, 9.0], "min_extent_mm": [10.0, 10.0, 10.0]},
        **replaced,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "CARD.md").write_text("# Untrained U-Net\n\nFor tests only.\n")
    return folder


def seeded(network: str, arguments: Mapping[str, Any], seed: int) -> nn.Module:
    """A network with random weights, those of batch normalisation too."""
    torch.manual_seed(seed)
    module = build(network, arguments).eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm3d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.3, 0.3)
    return module


def calibrated(module: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Take the statistics of smooth random tiles, and scale the last layer until every class wins somewhere on them.

    Untrained networks answer one class everywhere, and then equal labels would mean nothing.
    """
    (*_, head) = (layer for layer in module.modules() if isinstance(layer, nn.Conv3d))
    tiles = torch.from_numpy(smooth_tiles(1, shape[1:], seed=99))
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm3d):
            layer.momentum = 1.0
    with torch.no_grad():
        module.train()(tiles)
        logits = module.eval()(tiles)
        groups = head.out_channels // logits.shape[1]
        mean, spread = logits.mean((0, 2, 3, 4)), logits.std((0, 2, 3, 4))
        gain = (3.0 / spread.clamp_min(1e-6)).repeat_interleave(groups)
        head.weight.mul_(gain[:, None, None, None, None])
        head.bias.copy_((head.bias - mean.repeat_interleave(groups)) * gain)
    return module


def as_onnx(module: nn.Module, shape: tuple[int, ...], classes: int) -> bytes:
    """The network as ONNX for tiles of this shape (1, channels, z, y, x), in any number."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this exporter is the old one, which takes a second instead of ten
        torch.onnx.export(
            module,
            (torch.zeros(shape),),
            file,
            dynamo=False,
            opset_version=17,
            input_names=["tile"],
            output_names=["logits"],
            dynamic_axes={"tile": {0: "batch"}, "logits": {0: "batch"}},
        )
    model = onnx.load_from_string(file.getvalue())
    for axis, length in enumerate((classes, *shape[2:]), 1):  # known to us, not always to the exporter
        model.graph.output[0].type.tensor_type.shape.dim[axis].dim_value = length
    return bytes(model.SerializeToString())


def smooth_tiles(count: int, shape: tuple[int, ...], seed: int = 1) -> Any:
    """Random tiles (count, *shape), float32, that are smooth as scans are."""
    dice = np.random.default_rng(seed)
    tiles = dice.standard_normal((count, *shape)).astype(np.float32)
    for axis in (-1, -2, -3):
        tiles = (tiles + np.roll(tiles, 1, axis) + np.roll(tiles, 2, axis)) / 3
    return np.ascontiguousarray(tiles * 3)
