"""A MONAI bundle: `configs/inference.json` and `metadata.json` read as data, `models/model.pt` as tensors.

Only networks and steps of preprocessing that are known here are taken, by name. MONAI the library makes the network,
so that its weights fit; nothing else of it is run, and nothing that the bundle brings.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from appliance.errors import ModelRefused, Reason
from appliance.importing.completing import name_from
from appliance.importing.converted import Converted, ImportRequest, Member
from appliance.importing.monai_config import BundleConfig, read_config
from appliance.importing.monai_preprocessing import network_input
from appliance.importing.tensors import finite, invalid, read_checkpoint, read_safetensors

TITLE = "MONAI bundle"

_NETWORKS = frozenset(
    {
        "AttentionUnet",
        "BasicUNet",
        "BasicUnet",
        "DynUNet",
        "SegResNet",
        "SegResNetDS",
        "SwinUNETR",
        "UNETR",
        "UNet",
        "VNet",
    }
)
_MODULES = ("", "monai.networks.nets")
_WEIGHTS = ("model.safetensors", "model.pt", "model.pth", "model_final.pt")
_CONFIGS = ("inference.json", "inference.yaml", "inference.yml")


class AxesTurned(nn.Module):
    """A network of (x, y, z), as MONAI's arrays lie, behind an interface of (z, y, x)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, tile: Tensor) -> Tensor:
        """(B, channels, Z, Y, X) to (B, classes, Z, Y, X)."""
        logits: Any = self.network(tile.permute(0, 1, 4, 3, 2))
        # Networks with deep supervision answer with several resolutions, the full one first.
        full: Tensor = logits[0] if isinstance(logits, list | tuple) else logits
        return full.permute(0, 1, 4, 3, 2)


def recognises(path: Path) -> bool:
    """A folder with `configs/metadata.json`."""
    return path.is_dir() and (path / "configs").is_dir() and (path / "configs" / "metadata.json").is_file()


def read(path: Path, request: ImportRequest) -> Converted:
    """The bundle's network with its weights, and a manifest of what its configuration says.

    Raises:
        ModelRefused: MODEL_UNSAFE if what is needed is an expression or a class that is not known; MODEL_INVALID if
            something is missing, does not fit, or has no counterpart here.
    """
    found = [path / "configs" / name for name in _CONFIGS if (path / "configs" / name).is_file()]
    if not found:
        raise invalid(path, "has no configs/inference.json or .yaml")
    config = BundleConfig(read_config(found[0]), found[0].name)
    metadata = read_config(path / "configs" / "metadata.json")
    told = dict((request.manifest or {}).get("input", {}))
    manifest_input, notes = network_input(config, told, found[0].name)
    weights = _weights_file(path)
    network = _network(config, found[0].name)
    try:
        network.load_state_dict(_state(weights))
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise invalid(
            weights, f"does not fit the network of the bundle: {lines[min(1, len(lines) - 1)].strip()[:160]}"
        ) from error
    if expressions := config.expressions():
        notes = (*notes, f"Expressions of the configuration were not evaluated: {', '.join(expressions)}.")
    member = Member(AxesTurned(network.eval()).eval(), weights.relative_to(path).as_posix())
    return Converted(_manifest(path, metadata, manifest_input), (member,), notes)


def _network(config: BundleConfig, name: str) -> nn.Module:
    key = "network_def" if config.get("network_def") is not None else "network"
    definition = config.get(key)
    if not isinstance(definition, Mapping) or not isinstance(definition.get("_target_"), str):
        raise ModelRefused(Reason.MODEL_INVALID, f"{name} defines no network under network_def; nothing was imported")
    module, _, target = definition["_target_"].rpartition(".")
    if target not in _NETWORKS or not (module in _MODULES or module.startswith("monai.networks.nets.")):
        known = ", ".join(sorted(_NETWORKS))
        raise ModelRefused(
            Reason.MODEL_UNSAFE, f"{name} asks for {definition['_target_'][:80]!r}; known networks are {known}"
        )
    arguments = {key: value for key, value in definition.items() if not (key.startswith("_") and key.endswith("_"))}
    if target == "SwinUNETR":
        arguments.pop("img_size", None)  # MONAI needs it no longer; the tile decides
    try:
        nets = import_module("monai.networks.nets")
    except ImportError as error:
        raise ModelRefused(
            Reason.MODEL_INVALID,
            "a MONAI bundle needs MONAI, which is not installed; install delineate with its extra `import`",
        ) from error
    try:
        network: nn.Module = getattr(nets, target)(**arguments)
    except (
        TypeError,
        ValueError,
        KeyError,
        NotImplementedError,
        AssertionError,
        RuntimeError,
        AttributeError,
    ) as error:
        raise ModelRefused(
            Reason.MODEL_INVALID, f"{name} gives {target} arguments that MONAI does not take ({str(error)[:120]})"
        ) from error
    return network


def _weights_file(path: Path) -> Path:
    for name in _WEIGHTS:
        if (path / "models" / name).is_file():
            return path / "models" / name
    raise invalid(path, f"has none of {', '.join(_WEIGHTS)} in models/")


def _state(file: Path) -> dict[str, Tensor]:
    """The weights, wherever in the checkpoint MONAI's habits put them."""
    held: Any = read_safetensors(file) if file.suffix == ".safetensors" else read_checkpoint(file)
    for key in ("model", "state_dict", "network", "model_state_dict"):
        if isinstance(held.get(key), Mapping):
            held = held[key]
            break
    return finite({str(name).removeprefix("module."): value for name, value in held.items()}, file)


def _manifest(path: Path, metadata: Mapping[str, Any], manifest_input: Mapping[str, Any]) -> dict[str, Any]:
    title = str(metadata.get("name") or metadata.get("task") or path.name)
    stated = {
        "title": title,
        "intended_use": metadata.get("intended_use"),
        "training": metadata.get("data_source"),
        "licence": metadata.get("license") or metadata.get("licence"),
    }
    values: dict[str, Any] = {
        **{key: str(value)[:400] for key, value in stated.items() if value},
        "name": name_from(path.name),
        "source": f"{TITLE} {title[:80]} {metadata.get('version', '')}".strip(),
        "input": dict(manifest_input),
        "ensemble": "mean_softmax",
    }
    if classes := _classes(metadata):
        values["classes"] = classes
    if "intended_use" in values:
        values["intended_use"] += " Imported, not validated at this site."
    return values


def _classes(metadata: Mapping[str, Any]) -> Sequence[str]:
    """Names of the network's channels, the background first; none if the metadata do not say."""
    place: Any = metadata
    for key in ("network_data_format", "outputs", "pred", "channel_def"):
        place = place.get(key) if isinstance(place, Mapping) else None
    if not isinstance(place, Mapping):
        return ()
    names = [str(place.get(str(number), ""))[:64] for number in range(len(place))]
    return ["background", *names[1:]] if all(names) else ()
