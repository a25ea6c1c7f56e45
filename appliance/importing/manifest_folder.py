"""A folder with a manifest of ours and the weights beside it: safetensors for a network that we know, or ONNX."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from appliance.errors import ModelRefused, Reason
from appliance.importing.completing import merged
from appliance.importing.converted import Converted, ImportRequest, Member
from appliance.importing.onnx_model import read_network
from appliance.importing.sources import inside, read_text
from appliance.importing.tensors import finite, invalid, read_safetensors
from models.registry import UnknownNetwork, build

TITLE = "safetensors or ONNX with a manifest"


def recognises(path: Path) -> bool:
    """A folder with `manifest.json`."""
    return path.is_dir() and (path / "manifest.json").is_file()


def read(path: Path, request: ImportRequest) -> Converted:
    """Every fold that the manifest names, with the digest that it names.

    Raises:
        ModelRefused: MODEL_ALTERED if a file is another than the manifest's; MODEL_INVALID if a digest is missing, the
            network is unknown, or the weights do not fit it; MODEL_UNSAFE if it names files elsewhere.
    """
    values = _manifest(path)
    whole = merged(values, request.manifest or {})
    folds = values.pop("folds", None)
    if not isinstance(folds, list) or not folds or not all(isinstance(fold, dict) for fold in folds):
        raise invalid(path, "has a manifest without folds")
    members = tuple(_member(path, fold, whole) for fold in folds)
    if any(member.network is None for member in members):
        values.pop("network", None)
    return Converted(values, members)


def _manifest(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(read_text(path / "manifest.json"))
    except ValueError as error:
        raise invalid(path, "has a manifest that is no JSON") from error
    if not isinstance(values, dict) or values.get("format") != 1:
        raise invalid(path, "has a manifest of another format than 1")
    return values


def _member(path: Path, fold: Mapping[str, Any], manifest: Mapping[str, Any]) -> Member:
    named = "tensors" if fold.get("tensors") else "file"
    file = inside(path, str(fold.get(named) or ""))
    _check_digest(file, fold.get("tensors_sha256" if named == "tensors" else "sha256"))
    try:
        if named == "file":
            return Member(None, file.name, read_network(file, path, manifest))
        definition = manifest["network"]
        network = build(str(definition["name"]), definition.get("arguments", {}))
        network.load_state_dict(finite(read_safetensors(file), file))
    except UnknownNetwork as error:
        raise invalid(path, f"asks for an unknown network: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise invalid(path, f"has a manifest without what {file.name} needs ({error})") from error
    except RuntimeError as error:
        found = str(error).splitlines()
        raise invalid(file, f"does not fit the network: {found[min(1, len(found) - 1)].strip()[:160]}") from error
    return Member(network.eval(), file.name)


def _check_digest(file: Path, expected: Any) -> None:
    if not isinstance(expected, str) or not expected:
        raise invalid(file, "has no digest in the manifest")
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != expected:
        raise ModelRefused(
            Reason.MODEL_ALTERED,
            f"{file.name} has sha256 {found[:12]}..., the manifest says {expected[:12]}...; get the model again",
        )
