"""A checkpoint of Microsoft's InnerEye-DeepLearning: the weights of its UNet3D, under its names for them.

Lightning wrote it: `state_dict` with names such as `model._layers.0.block1.conv1.weight`, beside the state of the
training. How many levels, features and classes there are is read off the shapes; what the classes mean, and on which
grid the network was trained, stands in the authors' configuration and has to be told.
"""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from appliance.importing.converted import Converted, ImportRequest, Member
from appliance.importing.tensors import finite, invalid, read_checkpoint
from models.unet3d import UNet3D

TITLE = "InnerEye checkpoint"

_WINDOW = {"offset_hu": 50.0, "scale_hu": 300.0, "clip": [-1.0, 1.0]}
"""Its usual CT window: level 50, width 600, to -1..1."""
_TILE = [64, 192, 192]
_BESIDE = ("InnerEye", "lightning", "omegaconf", "pytorch_lightning", "torchmetrics")
"""Packages whose classes stand in a checkpoint of Lightning: the keys of its callbacks, metrics, settings."""
_FIRST_WEIGHT = "_layers.0.block1.conv1.weight"
_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def recognises(path: Path) -> bool:
    """A checkpoint file of torch, or a folder that holds .ckpt files."""
    if path.is_dir():
        return bool(_files(path))
    if path.suffix.lower() == ".ckpt":
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.rsplit("/", 1)[-1] == "data.pkl" for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, OSError):
        return False


def read(path: Path, request: ImportRequest) -> Converted:
    """One member for each checkpoint.

    Raises:
        ModelRefused: MODEL_UNSAFE if the checkpoint would execute code; MODEL_INVALID if its weights are not those of
            a UNet3D.
    """
    del request
    root = path if path.is_dir() else path.parent
    members, shapes = [], set()
    for file in _files(path):
        state = _weights(file)
        arguments, renamed = _renamed(state, file)
        network = UNet3D(**arguments)
        try:
            network.load_state_dict(renamed)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise invalid(file, f"holds weights of another shape than its UNet3D has ({reason[:160]})") from error
        members.append(Member(network.eval(), file.relative_to(root).as_posix()))
        shapes.add(repr(arguments))
    if len(shapes) > 1:
        raise invalid(path, "holds checkpoints of networks of different sizes")
    manifest = {
        "input": {"tile": _TILE, "channels": [_WINDOW] * int(arguments["channels"]), "orientation": "LPS"},
        "network": {"name": "unet3d", "arguments": arguments},
        "ensemble": "mean_softmax",
    }
    notes = (
        f"The network gives {arguments['classes']} classes; their names are those that the import was told.",
        "A checkpoint does not hold its window: InnerEye's usual one (level 50, width 600 HU) was taken unless told.",
        "A checkpoint does not hold its tile: 64 x 192 x 192 voxels were taken unless told.",
    )
    return Converted(manifest, tuple(members), notes)


def _files(path: Path) -> list[Path]:
    return sorted(path.rglob("*.ckpt")) if path.is_dir() else [path]


def _weights(file: Path) -> dict[str, Tensor]:
    """The network's own weights, without the prefix that Lightning and others put before their names."""
    held = read_checkpoint(file, ignored=_BESIDE)
    state: Any = held.get("state_dict", held)
    if not isinstance(state, Mapping):
        raise invalid(file, "holds no weights under state_dict")
    prefixes = [str(name)[: -len(_FIRST_WEIGHT)] for name in state if str(name).endswith(_FIRST_WEIGHT)]
    if len(prefixes) != 1:
        raise invalid(
            file, "is no checkpoint of InnerEye's UNet3D, and weights alone do not say which network they need"
        )
    prefix = prefixes[0]
    return finite({str(name)[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}, file)


def _renamed(state: Mapping[str, Tensor], file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Arguments of the network that the weights are for, and the weights under the names that it has here."""
    layers = {int(found[1]) for name in state if (found := re.match(r"_layers\.(\d+)\.", name))}
    levels, rest = divmod(len(layers) - 1, 3)
    first, head = state[_FIRST_WEIGHT], state.get("output_layer.weight")
    if rest or levels < 1 or layers != set(range(len(layers))) or head is None or first.ndim != 5:
        raise invalid(file, "has layers that are not those of a UNet3D")
    names = _names(levels)
    if set(names) != set(state):
        odd = sorted(set(names) ^ set(state))
        raise invalid(file, f"lacks or adds to the weights of a UNet3D: {', '.join(odd[:3])}")
    arguments = {
        "channels": first.shape[1],
        "classes": head.shape[0],
        "first_features": first.shape[0],
        "levels": levels,
        "kernel": list(first.shape[2:]),
    }
    return arguments, {ours: state[theirs] for theirs, ours in names.items()}


def _names(levels: int) -> dict[str, str]:
    """Every name of theirs -> ours."""
    names: dict[str, str] = {"output_layer.weight": "head.weight", "output_layer.bias": "head.bias"}
    for number in range(levels + 1):
        ours = "stem" if number == 0 else f"encoder.{number - 1}"
        for block, place in (("block1", "first"), ("block2", "second")):
            names |= _layer(f"_layers.{number}.{block}", f"{ours}.{place}")
    for step, level in enumerate(reversed(range(levels))):
        up, join = f"_layers.{levels + 1 + 2 * step}", f"_layers.{levels + 2 + 2 * step}"
        names |= {f"{up}.upsample_block.0.{part}": f"up.{level}.convolution.{part}" for part in ("weight", "bias")}
        names |= {f"{up}.upsample_block.1.{part}": f"up.{level}.norm.{part}" for part in _NORM}
        names[f"{join}.conv1.conv1.weight"] = f"synthesis.{level}.deep.weight"
        names[f"{join}.conv2.conv1.weight"] = f"synthesis.{level}.skip.weight"
        names |= {f"{join}.activation_block.0.{part}": f"synthesis.{level}.norm.{part}" for part in _NORM}
        names |= _layer(f"{join}.block2", f"synthesis.{level}.second")
    return names


def _layer(theirs: str, ours: str) -> dict[str, str]:
    """A convolution without bias and its normalisation."""
    norm = {f"{theirs}.bn1.{part}": f"{ours}.norm.{part}" for part in _NORM}
    return {f"{theirs}.conv1.weight": f"{ours}.convolution.weight", **norm}
