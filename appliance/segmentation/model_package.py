"""A model is data: a folder with a manifest, the folds' networks and a card.

Nothing in a package is ever executed but the networks, and those only if their digests are the manifest's.
A missing or altered fold stops the model; it never shrinks the ensemble.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from appliance.errors import ModelRefused, Reason
from appliance.segmentation.manifest import Manifest


@dataclass(frozen=True, slots=True)
class ModelPackage:
    """A package whose every fold was checked against the manifest.

    Attributes:
        manifest: what the model says about itself.
        digest: sha256 over the manifest as canonical JSON; as that holds the folds' digests, it names the weights too.
        fold_paths: the networks, in the manifest's order.
    """

    manifest: Manifest
    digest: str
    fold_paths: tuple[Path, ...]

    def read_network(self, fold: int) -> bytes:
        """Read a fold's ONNX file; what is returned is what was checked.

        Raises:
            ModelRefused: MODEL_MISSING, MODEL_ALTERED.
        """
        return _checked(self.fold_paths[fold], self.manifest.folds[fold].sha256)

    def read_tensors(self, fold: int) -> bytes:
        """Read a fold's safetensors file; what is returned is what was checked.

        Raises:
            ModelRefused: MODEL_MISSING if it is not there or the manifest names none, MODEL_ALTERED.
        """
        entry, folder = self.manifest.folds[fold], self.fold_paths[fold].parent
        if entry.tensors is None or entry.tensors_sha256 is None:
            raise ModelRefused(
                Reason.MODEL_MISSING,
                f"model package {folder.name} holds no tensors for fold {fold + 1}; publish it again",
            )
        return _checked(folder / entry.tensors, entry.tensors_sha256)


def load_package(folder: Path) -> ModelPackage:
    """Read and check the model package in a folder.

    Raises:
        ModelRefused: MODEL_MISSING without folder, manifest or fold; MODEL_INVALID if the manifest breaks a
            rule; MODEL_ALTERED if a fold is not the one that the manifest was written for.
    """
    raw = _read_manifest(folder)
    try:
        manifest = Manifest.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "manifest"
        raise _invalid(folder, f"{place}: {first['msg']}") from error
    for fold in manifest.folds:
        _checked(folder / fold.file, fold.sha256)
        if fold.tensors is not None and fold.tensors_sha256 is not None:
            _checked(folder / fold.tensors, fold.tensors_sha256)
    # The file's own JSON, not the parsed values: a later version's new default must not rename an old package.
    canonical = json.dumps(raw, sort_keys=True, separators=(",", ":")).encode()
    fold_paths = tuple(folder / fold.file for fold in manifest.folds)
    return ModelPackage(manifest, hashlib.sha256(canonical).hexdigest(), fold_paths)


def _read_manifest(folder: Path) -> Any:
    path = folder / "manifest.json"
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ModelRefused(
            Reason.MODEL_MISSING, f"there is no model package in {folder}; install it or correct the protocol"
        ) from error
    except ValueError as error:  # broken JSON, or bytes that are no text
        raise _invalid(folder, "manifest.json is not JSON") from error


def _checked(path: Path, expected_sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ModelRefused(
            Reason.MODEL_MISSING, f"{path.name} of model package {path.parent.name} is missing; install it again"
        ) from error
    found_sha256 = hashlib.sha256(content).hexdigest()
    if found_sha256 != expected_sha256:
        raise ModelRefused(
            Reason.MODEL_ALTERED,
            f"{path.name} of model package {path.parent.name} has sha256 {found_sha256[:12]}..., the manifest "
            f"says {expected_sha256[:12]}...; install the package again",
        )
    return content


def _invalid(folder: Path, what: str) -> ModelRefused:
    return ModelRefused(Reason.MODEL_INVALID, f"model package {folder.name}: {what}; publish it again")
