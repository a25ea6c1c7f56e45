"""Small foreign models of every format that can be imported, as their own projects write them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import onnx
import torch
from safetensors.torch import save_file
from torch import nn

from appliance.importing.converted import ImportRequest
from models.registry import build

TILE = (16, 32, 32)
CLASSES = ["background", "Bladder", "Rectum"]
REQUEST = ImportRequest(
    name="imported",
    licence="CC-BY-4.0",
    manifest={
        "classes": CLASSES,
        "input": {
            "spacing_mm": [4.0, 4.0, 4.0],
            "tile": list(TILE),
            "channels": [{"offset_hu": 0.0, "scale_hu": 1000.0, "clip": [-1.0, 2.0]}],
        },
    },
)
"""What a person adds where a format says nothing of it."""


class SmallNetwork(nn.Module):
    """One level down and up again, with a decision in Python that a script keeps and a trace does not."""

    def __init__(self, classes: int = len(CLASSES)) -> None:
        super().__init__()
        self.first = nn.Conv3d(1, 6, 3, padding=1)
        self.norm = nn.InstanceNorm3d(6, affine=True)
        self.down = nn.Conv3d(6, 8, 2, stride=2)
        self.up = nn.ConvTranspose3d(8, 6, 2, stride=2)
        self.head = nn.Conv3d(12, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.leaky_relu(self.norm(self.first(x)))
        y = self.up(self.down(x))
        if y.shape[2] != x.shape[2]:
            y = y[:, :, : x.shape[2]]
        return self.head(torch.cat([x, y], 1))


def small_network(seed: int = 1) -> SmallNetwork:
    torch.manual_seed(seed)
    return SmallNetwork().eval()


def make_onnx(path: Path, *, dynamic: bool = False, network: nn.Module | None = None) -> Path:
    from models.onnx_export import to_onnx

    path.write_bytes(to_onnx(network or small_network(), (1, 1, *TILE)))
    if dynamic:
        model = onnx.load(path)
        for value in (model.graph.input[0], model.graph.output[0]):
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
        onnx.save(model, path)
    return path


def make_torchscript(path: Path, *, scripted: bool) -> Path:
    network = small_network()
    script = torch.jit.script(network) if scripted else torch.jit.trace(network, torch.zeros(1, 1, *TILE))
    torch.jit.save(script, str(path))
    return path


def make_manifest_folder(folder: Path, **changes: Any) -> Path:
    """Two folds of our own fast network as safetensors, with a manifest."""
    folder.mkdir(parents=True)
    arguments = {"channels": 1, "classes": len(CLASSES), "features": [4, 6]}
    folds = []
    for number in range(2):
        torch.manual_seed(number)
        file = folder / f"fold_{number}.safetensors"
        save_file(build("unet3d_fast", arguments).state_dict(), file)
        folds.append({"tensors": file.name, "tensors_sha256": hashlib.sha256(file.read_bytes()).hexdigest()})
    manifest: dict[str, Any] = {
        "format": 1,
        "name": "two-folds",
        "licence": "Apache-2.0",
        "classes": CLASSES,
        "input": dict((REQUEST.manifest or {})["input"]),
        "network": {"name": "unet3d_fast", "arguments": arguments},
        "folds": folds,
        **changes,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def monai_config(**changes: Any) -> dict[str, Any]:
    """An inference.json as MONAI's model zoo writes it, with its habit of expressions beside what matters."""
    image = {"keys": "@image_key"}
    return {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "image_key": "image",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "output_dtype": "$numpy.float32",
        "network_def": {
            "_target_": "UNet",
            "spatial_dims": 3,
            "in_channels": 1,
            "out_channels": len(CLASSES),
            "channels": "$(4, 8, 16)",
            "strides": [2, 2],
            "num_res_units": 2,
            "norm": "batch",
        },
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", **image},
                {"_target_": "EnsureChannelFirstd", **image},
                {"_target_": "Orientationd", **image, "axcodes": "RAS"},
                {"_target_": "Spacingd", **image, "pixdim": [1.5, 2.5, 4.0], "mode": "bilinear"},
                {
                    "_target_": "ScaleIntensityRanged",
                    **image,
                    "a_min": -57,
                    "a_max": 164,
                    "b_min": 0,
                    "b_max": 1,
                    "clip": True,
                },
                {"_target_": "EnsureTyped", **image},
            ],
        },
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": [32, 24, 16],
            "overlap": 0.5,
            "device": "$torch.device('cpu')",
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                {"_target_": "SaveImaged", "keys": "pred", "output_dtype": "@output_dtype"},
            ],
        },
        "run": ["$@evaluator.run()"],
        **changes,
    }


def make_monai_bundle(folder: Path, **changes: Any) -> Path:
    """A bundle folder whose weights are those of MONAI's own UNet."""
    from monai.networks.nets import UNet

    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps(monai_config(**changes)))
    channel_def = {str(number): name for number, name in enumerate(CLASSES)}
    metadata = {
        "version": "0.2.0",
        "task": "Pelvis of nobody",
        "license": "Apache-2.0",
        "network_data_format": {"outputs": {"pred": {"channel_def": channel_def}}},
    }
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    torch.manual_seed(3)
    network = UNet(3, 1, len(CLASSES), (4, 8, 16), (2, 2), num_res_units=2, norm="batch")
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    return folder


def innereye_state(channels: int, classes: int, features: int, levels: int, kernel: tuple[int, ...]) -> dict[str, Any]:
    """A state of InnerEye's UNet3D under the names of InnerEye-DeepLearning, prefixed as Lightning does."""
    state: dict[str, Any] = {}

    def convolution(name: str, taken: int, given: int) -> None:
        state[f"{name}.weight"] = torch.randn(given, taken, *kernel) / (taken * 9) ** 0.5

    def norm(name: str, count: int) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = torch.rand(count) + 0.5, torch.randn(count) / 5
        state[f"{name}.running_mean"], state[f"{name}.running_var"] = torch.randn(count) / 5, torch.rand(count) + 0.5
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def layer(name: str, taken: int, given: int) -> None:
        convolution(f"{name}.conv1", taken, given)
        norm(f"{name}.bn1", given)

    widths = [channels, *(features * 2**level for level in range(levels + 1))]
    for number in range(levels + 1):
        layer(f"_layers.{number}.block1", widths[number], widths[number + 1])
        layer(f"_layers.{number}.block2", widths[number + 1], widths[number + 1])
    for step in range(levels):
        deep, shallow = widths[levels + 1 - step], widths[levels - step]
        up, join = f"_layers.{levels + 1 + 2 * step}", f"_layers.{levels + 2 + 2 * step}"
        state[f"{up}.upsample_block.0.weight"] = torch.randn(deep, shallow, 4, 4, 4) / (deep * 8) ** 0.5
        state[f"{up}.upsample_block.0.bias"] = torch.randn(shallow) / 5
        norm(f"{up}.upsample_block.1", shallow)
        convolution(f"{join}.conv1.conv1", shallow, shallow)
        convolution(f"{join}.conv2.conv1", shallow, shallow)
        norm(f"{join}.activation_block.0", shallow)
        layer(f"{join}.block2", shallow, shallow)
    state["output_layer.weight"] = torch.randn(classes, features, 1, 1, 1)
    state["output_layer.bias"] = torch.randn(classes)
    return {f"model.{name}": value for name, value in state.items()}


def make_innereye_checkpoint(path: Path, seed: int = 5) -> Path:
    torch.manual_seed(seed)
    state = innereye_state(1, len(CLASSES), 4, 3, (3, 3, 3))
    torch.save({"epoch": 120, "state_dict": state, "pytorch-lightning_version": "1.0.6", "callbacks": {}}, path)
    return path
