"""A model that was read becomes a folder: networks as ONNX that answer as the original does, manifest, card, report."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import safetensors.torch
import scipy.ndimage
from numpy.typing import NDArray
from torch import nn

from appliance.errors import ModelRefused, Reason
from appliance.importing.completing import checked, completed
from appliance.importing.converted import Converted, ImportRequest, Member
from appliance.importing.report import ImportReport, MemberReport
from appliance.importing.tensors import finite
from appliance.segmentation.backends.onnx_network import ERRORS
from appliance.segmentation.manifest import Manifest, NetworkDefinition
from appliance.segmentation.model_package import load_package
from models.onnx_export import Differences, NotExportable, answering, compare, to_onnx
from models.registry import UnknownNetwork, build

_LARGEST_SHARE_OF_CHANGED_LABELS = 1e-4
"""Rounding moves single voxels whose two likeliest classes are a tie; more is another network."""
_PLACEHOLDER = "0" * 64


@dataclass(frozen=True)
class Origin:
    """Where a model came from and with what it was converted, as `ImportReport` has it."""

    format: str
    source: str
    source_sha256: dict[str, str]
    tools: dict[str, str]
    confinement: tuple[str, ...]


def write_package(
    converted: Converted, request: ImportRequest, origin: Origin, folder: Path, on_step: Callable[[str], None]
) -> ImportReport:
    """Write a whole package and check it as a worker will.

    Args:
        converted: what the reader found.
        request: what the person who imports adds.
        origin: for manifest, card and report.
        folder: an empty folder.
        on_step: hears of each step.

    Raises:
        ModelRefused: MODEL_INVALID if the manifest breaks a rule, a network is not what it says, or it does not answer
            as the original does once converted.
    """
    values, assumed = completed(converted, request, origin.source, origin.format)
    members = range(len(converted.members))
    manifest = checked({**values, "folds": [{"file": f"fold_{k}.onnx", "sha256": _PLACEHOLDER} for k in members]})
    folds, reports = [], []
    for number, member in enumerate(converted.members):
        on_step(f"converting network {number + 1} of {len(converted.members)}")
        fold, report = _write_member(member, number, manifest, folder)
        folds.append(fold)
        reports.append(report)
    values["folds"] = folds
    checked(values)
    done = ImportReport(
        package=manifest.name,
        version=manifest.version,
        format=origin.format,
        source=origin.source,
        source_sha256=origin.source_sha256,
        members=tuple(reports),
        notes=(*converted.notes, *assumed),
        tools=origin.tools,
        confinement=origin.confinement,
    )
    _write_json(folder / "manifest.json", values)
    _write_json(folder / "import_report.json", done.model_dump(mode="json"))
    (folder / "CARD.md").write_text(_card(manifest, done), encoding="utf-8")
    on_step("checking the package")
    load_package(folder)
    return done


def _write_member(member: Member, number: int, manifest: Manifest, folder: Path) -> tuple[dict[str, Any], MemberReport]:
    path = folder / f"fold_{number}.onnx"
    shape = (1, len(manifest.input.channels), *manifest.input.tile)
    try:
        model = member.onnx if member.onnx is not None else to_onnx(_ready(member), shape)
    except NotExportable as error:
        raise _invalid(f"{member.came_from}: {error}") from error
    path.write_bytes(model)
    original, differences = _differences(member, model, manifest)
    _judge(member, differences)
    fold = {"file": path.name, "sha256": hashlib.sha256(model).hexdigest()}
    if manifest.network is not None and member.network is not None:
        tensors = folder / f"fold_{number}.safetensors"
        tensors.write_bytes(_tensors(member.network, manifest.network, member.came_from))
        fold |= {"tensors": tensors.name, "tensors_sha256": hashlib.sha256(tensors.read_bytes()).hexdigest()}
    report = MemberReport(
        file=path.name,
        tensors=fold.get("tensors"),
        came_from=member.came_from,
        original=original,
        tiles=differences.tiles,
        largest_logit_difference=differences.largest_logit,
        changed_labels=differences.changed_labels,
    )
    return fold, report


def trial_tiles(manifest: Manifest) -> list[NDArray[np.float32]]:
    """Two tiles (1, channels, z, y, x): noise over the channels' whole range, and smooth regions with little noise."""
    dice = np.random.default_rng(1)
    tile, channels = manifest.input.tile, manifest.input.channels
    coarse = tuple(max(2, side // 8) for side in tile)
    smooth = dice.uniform(0, 1, coarse)
    smooth = scipy.ndimage.zoom(smooth, [side / part for side, part in zip(tile, coarse, strict=True)], order=1)
    steps = np.clip(np.round(smooth[: tile[0], : tile[1], : tile[2]] * 4) / 4 + dice.normal(0, 0.02, tile), 0, 1)
    low, high = np.array([channel.clip for channel in channels]).T[:, :, None, None, None]
    # A window that clips nothing has ends far beyond what tissue gives.
    low, high = np.maximum(low, -5.0), np.minimum(high, 5.0)
    noise = dice.uniform(0, 1, (len(channels), *tile))
    return [(low + (high - low) * share)[np.newaxis].astype(np.float32) for share in (noise, steps)]


def _differences(member: Member, model: bytes, manifest: Manifest) -> tuple[str, Differences]:
    shape = (1, len(manifest.classes), *manifest.input.tile)
    name = "torch"
    try:
        if member.network is not None:
            answer = answering(_ready(member))
        else:
            name, answer = "ONNX Runtime without optimisation", _unoptimised(model)
        tiles = trial_tiles(manifest)
        answered = answer(tiles[0])
        if answered.shape != shape:
            found, wanted = list(answered.shape), list(shape)
            raise _invalid(f"{member.came_from} answers with {found}; classes and tile of the manifest mean {wanted}")
        if not np.isfinite(answered).all():
            raise _invalid(f"{member.came_from} answers with values that are no numbers")
        return name, compare(answer, model, tiles)
    except (RuntimeError, TypeError, IndexError, *ERRORS) as error:
        first = (str(error).splitlines() or ["no reason given"])[0]
        raise _invalid(f"{member.came_from} does not run on the manifest's tile: {first[:200]}") from error


def _judge(member: Member, found: Differences) -> None:
    if found.largest_logit > found.largest_allowed or found.changed_labels > _LARGEST_SHARE_OF_CHANGED_LABELS:
        raise _invalid(
            f"{member.came_from} answers otherwise once converted: logits by {found.largest_logit:.2e}, "
            f"{found.changed_labels:.2%} of the labels"
        )


def _ready(member: Member) -> nn.Module:
    if member.network is None:
        raise TypeError("a member that is ONNX already has no torch network")
    return member.network.eval()


def _unoptimised(model: bytes) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def answer(tile: NDArray[np.float32]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = session.run(None, {name: tile})[0]
        return logits

    return answer


def _tensors(network: nn.Module, definition: NetworkDefinition, came_from: str) -> bytes:
    """The weights as safetensors, which a fresh network of the definition takes."""
    state = finite(network.state_dict(), Path(came_from))
    try:
        build(definition.name, definition.arguments).load_state_dict(state)
    except (UnknownNetwork, RuntimeError) as error:
        raise _invalid(f"{came_from} does not fit the network {definition.name}") from error
    content: bytes = safetensors.torch.save({name: tensor.clone().contiguous() for name, tensor in state.items()})
    return content


def _write_json(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _card(manifest: Manifest, report: ImportReport) -> str:
    rows = [
        ("Source", manifest.source or report.source),
        ("Licence", manifest.licence),
        ("Intended use", manifest.intended_use),
        ("Training", manifest.training),
        ("Structures", ", ".join(roi.name for roi in manifest.rois)),
        ("Grid", f"{manifest.input.spacing_mm} mm (z, y, x), tiles of {manifest.input.tile} voxels"),
        ("Ensemble", f"{len(manifest.folds)} networks, {manifest.ensemble.replace('_', ' ')}"),
    ]
    table = "\n".join(f"| {name} | {_cell(value)} |" for name, value in rows)
    notes = "\n".join(f"- {note}" for note in report.notes) or "- None."
    parity = "\n".join(
        f"- {member.file} of {_cell(member.came_from)}, against {member.original}: logits within "
        f"{member.largest_logit_difference:.1e}, {member.changed_labels:.4%} of the labels changed "
        f"({member.tiles} tiles)"
        for member in report.members
    )
    return (
        f"# {manifest.name} {manifest.version}\n\n**Imported, not validated at this site.** Validate it on local cases "
        f"before anyone relies on it.\n\n| | |\n|---|---|\n{table}\n\n## Conversion\n{parity}\n\n"
        f"## Notes\n{notes}\n"
    )


def _cell(value: str) -> str:
    return value.replace("|", "/").replace("\n", " ")


def _invalid(what: str) -> ModelRefused:
    return ModelRefused(Reason.MODEL_INVALID, f"{what}; nothing was imported")
