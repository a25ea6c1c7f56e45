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
    raw, manifest = _read(folder)
    for fold in manifest.folds:
        _checked(folder / fold.file, fold.sha256)
        if fold.tensors is not None and fold.tensors_sha256 is not None:
            _checked(folder / fold.tensors, fold.tensors_sha256)
    fold_paths = tuple(folder / fold.file for fold in manifest.folds)
    return ModelPackage(manifest, _digest(raw), fold_paths)


def read_manifest(folder: Path) -> Manifest:
    """Read what the model package in a folder says about itself, and leave its folds alone.

    Raises:
        ModelRefused: MODEL_MISSING without folder or manifest; MODEL_INVALID if the manifest breaks a rule.
    """
    return _read(folder)[1]


def digest_of(folder: Path) -> str:
    """The digest of the package in a folder, judged by its manifest alone.

    Raises:
        ModelRefused: MODEL_MISSING or MODEL_INVALID, the manifest cannot be read.
    """
    return _digest(_read_json(folder))


def is_still(package: ModelPackage, folder: Path) -> bool:
    """Tell whether a package that was loaded is the one that a folder holds, judged by its manifest alone.

    Raises:
        ModelRefused: MODEL_MISSING or MODEL_INVALID, the folder's manifest cannot be read any more.
    """
    return package.fold_paths[0].parent == folder and package.digest == digest_of(folder)


def _digest(raw: Any) -> str:
    # The file's own JSON, not the parsed values: a later version's new default must not rename an old package.
    return hashlib.sha256(json.dumps(raw, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _title(folder: Path) -> str:
    """What people call a package: the name of its folder, or of its name's and its version's."""
    return f"{folder.parent.name} {folder.name}" if folder.name[:1].isdigit() and "." in folder.name else folder.name


def _read(folder: Path) -> tuple[Any, Manifest]:
    """The manifest as it stands in the file, and as checked values."""
    raw = _read_json(folder)
    try:
        return raw, Manifest.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "manifest"
        raise _invalid(folder, f"{place}: {first['msg']}") from error


def _read_json(folder: Path) -> Any:
    path = folder / "manifest.json"
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
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
            Reason.MODEL_MISSING, f"{path.name} of model package {_title(path.parent)} is missing; install it again"
        ) from error
    found_sha256 = hashlib.sha256(content).hexdigest()
    if found_sha256 != expected_sha256:
        raise ModelRefused(
            Reason.MODEL_ALTERED,
            f"{path.name} of model package {_title(path.parent)} has sha256 {found_sha256[:12]}..., the manifest "
            f"says {expected_sha256[:12]}...; install the package again",
        )
    return content


def _invalid(folder: Path, what: str) -> ModelRefused:
    return ModelRefused(Reason.MODEL_INVALID, f"model package {_title(folder)}: {what}; publish it again")
