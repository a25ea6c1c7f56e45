"""Results folders of nnU-Net v2, and TotalSegmentator's weights, which are such folders.

What its predictor does to a scan is reproduced by keys of the manifest (`resampling = "cubic"` and its like); this
module reads the plans, the class map and the weights, and refuses what these keys do not reproduce.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from appliance.importing.converted import Converted, ImportRequest, Member
from appliance.importing.nnunet_networks import network_arguments
from appliance.importing.nnunet_plans import (
    Configuration,
    Dataset,
    Plans,
    classes_of,
    configuration_of,
    read_json,
    refused,
)
from appliance.importing.roi_names import roi_names
from appliance.importing.tensors import finite, read_checkpoint
from models.nnunet import NNUNet
from models.registry import UnknownNetwork, build

TITLE = "nnU-Net v2 results folder"
_IMPORTED = ("3d_fullres", "3d_lowres")
"""Configurations that are looked for in a folder with several, the first one first."""
_CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
_REORIENTING = ("NibabelIOWithReorient", "SimpleITKIOWithReorient")
"""Readers of nnU-Net that turn every image to RAS; the others leave it as it is stored."""
_TWICE = re.compile(r"\.all_modules\.\d+\.|^decoder\.encoder\.")
"""Weights that nnU-Net stores under a second name."""
_MIRRORS = "zyx"


@dataclass(frozen=True)
class _Fold:
    name: str
    file: Path


def recognises(path: Path) -> bool:
    """Whether a folder holds plans, a class map and folds of nnU-Net, itself or up to two levels below."""
    return next(_results(path), None) is not None


def read(path: Path, request: ImportRequest) -> Converted:
    """Read one configuration of a results folder, with all its folds.

    A folder with several configurations gives its `3d_fullres`, or else its `3d_lowres`; any other one is imported by
    naming its own folder.

    Raises:
        ModelRefused: MODEL_INVALID or MODEL_UNSAFE, with a sentence.
    """
    folder = _chosen(path)
    plans = read_json(folder / "plans.json", Plans)
    dataset = read_json(folder / "dataset.json", Dataset)
    classes = classes_of(dataset)
    folds = _folds(folder)
    first = read_checkpoint(folds[0].file)
    name = _configuration_name(first, folder)
    configuration, said = configuration_of(plans, name)
    arguments = {
        "in_channels": 1,
        "classes": len(classes),
        **network_arguments(said),
        "axes": list(plans.transpose_forward),
    }
    members = []
    for fold in folds:
        held = first if fold is folds[0] else read_checkpoint(fold.file)
        if held.get("inference_allowed_mirroring_axes") != first.get("inference_allowed_mirroring_axes"):
            raise refused(f"{fold.name} was mirrored along other axes than {folds[0].name}")
        came_from = fold.file.relative_to(path).as_posix() if fold.file.is_relative_to(path) else fold.file.name
        members.append(Member(_network(held, fold, arguments), came_from))
    network_input = {
        **_grid(plans, configuration),
        **_reading(plans),
        "channels": [_channel(plans)],
        "mirror": _mirror(first, plans),
    }
    values = {
        **_description(plans, dataset, name, folds),
        "input": network_input,
        "classes": classes,
        "network": {"name": "nnunet", "arguments": arguments},
        "ensemble": "mean_logits",
        "rois": [{"name": roi, "classes": [one]} for roi, one in zip(roi_names(classes[1:]), classes[1:], strict=True)],
    }
    return Converted(values, tuple(members), tuple(_notes(plans, request, folds, name)))


def _results(path: Path) -> Iterator[Path]:
    """Folders with plans and a class map, the uppermost first."""
    for pattern in ("plans.json", "*/plans.json", "*/*/plans.json"):
        for plans in sorted(path.glob(pattern)) if path.is_dir() else ():
            if (plans.parent / "dataset.json").is_file() and any(plans.parent.glob("fold_*")):
                yield plans.parent


def _chosen(path: Path) -> Path:
    found = list(_results(path))
    if not found:
        raise refused("there are no plans.json, dataset.json and fold_* in one folder")
    if found[0] == path or len(found) == 1:
        return found[0]
    for configuration in _IMPORTED:
        fitting = [folder for folder in found if folder.name.endswith(f"__{configuration}")]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            names = ", ".join(folder.relative_to(path).as_posix() for folder in fitting)
            raise refused(f"there are several trainings ({names}); name the folder of one")
    raise refused(f"of several configurations none is {' or '.join(_IMPORTED)}; name the folder of one")


def _folds(folder: Path) -> list[_Fold]:
    """Every fold that was trained, each with its checkpoint: none is left out.

    Raises:
        ModelRefused: MODEL_INVALID naming the folds that are missing or have no checkpoint.
    """
    there = {path.name for path in folder.glob("fold_*") if path.is_dir()}
    numbered = sorted(name for name in there if re.fullmatch(r"fold_\d+", name))
    wanted = set(numbered) or there & {"fold_all"}
    if numbered:
        wanted |= {f"fold_{number}" for number in range(max(int(name[5:]) for name in numbered))}
    for validated in folder.glob("crossval_results_folds_*"):
        wanted |= {f"fold_{number}" for number in validated.name[23:].split("_") if number.isdigit()}
    names = sorted(wanted, key=lambda name: (len(name), name))
    without = {file: [name for name in names if not (folder / name / file).is_file()] for file in _CHECKPOINTS}
    for file, missing in without.items():
        if names and not missing:
            return [_Fold(name, folder / name / file) for name in names]
    missing = min(without.values(), key=len)
    raise refused(f"{', '.join(missing) or 'every fold'} has no {_CHECKPOINTS[0]}; an ensemble is imported whole")


def _configuration_name(checkpoint: Mapping[str, Any], folder: Path) -> str:
    init = checkpoint.get("init_args")
    named = init.get("configuration") if isinstance(init, Mapping) else None
    return str(named) if named is not None else folder.name.rpartition("__")[2]


def _network(checkpoint: Mapping[str, Any], fold: _Fold, arguments: Mapping[str, Any]) -> NNUNet:
    """The network with a fold's weights.

    Raises:
        ModelRefused: MODEL_INVALID if they are not numbers, or are those of another network or class map.
    """
    state = checkpoint.get("network_weights")
    if not isinstance(state, Mapping):
        raise refused(f"{fold.name}/{fold.file.name} holds no network_weights")
    weights = _once(finite(state, fold.file), fold)
    try:
        network = build("nnunet", arguments)
    except UnknownNetwork as error:
        raise refused(f"its network cannot be made ({str(error)[:200]})") from error
    assert isinstance(network, NNUNet)  # noqa: S101  what the registry makes under this name
    heads = {name: tensor for name, tensor in weights.items() if name.startswith("decoder.seg_layers.")}
    own = network.state_dict()
    for name in heads.keys() - own.keys():
        del weights[name]  # heads that only training asks
    outputs = {len(tensor) for tensor in heads.values()}
    if outputs != {arguments["classes"]}:
        found = ", ".join(map(str, sorted(outputs))) or "no"
        raise refused(
            f"{fold.name} has {found} output channels, but dataset.json has {arguments['classes']} labels; the class "
            "map does not fit"
        )
    unlike = [name for name in own.keys() | weights.keys() if name not in own or name not in weights]
    unlike += [name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape]
    if unlike:
        raise refused(
            f"the weights of {fold.name} are not those of the network in plans.json ({len(unlike)} differ, such as "
            f"{min(unlike)[:80]}); it was trained with another architecture"
        )
    network.load_state_dict(weights)
    return network.eval()


def _once(weights: Mapping[str, Tensor], fold: _Fold) -> dict[str, Tensor]:
    """The weights without those that nnU-Net stores under a second name, which must be the same."""
    kept: dict[str, Tensor] = {name: tensor for name, tensor in weights.items() if not _TWICE.search(name)}
    for name, tensor in weights.items():
        if name in kept:
            continue
        place = name.removeprefix("decoder.") if name.startswith("decoder.encoder.") else name
        owner, _, kind = place.rpartition(".")
        before, within, _ = owner.rpartition(".all_modules.")
        firsts = [f"{before}.{part}.{kind}" for part in ("conv", "norm")] if within else [place]
        if not any(first in kept and torch.equal(kept[first], tensor) for first in firsts):
            raise refused(f"{fold.name} holds two versions of its weights, such as {name[:80]}")
    return kept


def _grid(plans: Plans, configuration: Configuration) -> dict[str, Any]:
    """Spacing and tile along the image's axes, which the network sees in another order."""
    place = [plans.transpose_forward.index(axis) for axis in range(3)]
    return {
        "spacing_mm": [configuration.spacing[index] for index in place],
        "tile": [configuration.patch_size[index] for index in place],
        "overlap": 0.5,
        "crop": "whole",
        "skip_air": False,
        "resampling": "cubic",
        "padding": "zero",
    }


def _reading(plans: Plans) -> dict[str, Any]:
    return {"orientation": "RAS" if plans.image_reader_writer in _REORIENTING else "LPS"}


def _channel(plans: Plans) -> dict[str, Any]:
    """nnU-Net's normalisation of CT: cut at two percentiles, then in standard deviations from the mean."""
    found = plans.intensities.get("0")
    if found is None:
        raise refused("plans.json does not say which HU its structures have")
    scale = max(found.std, 1e-8)
    ends = (found.percentile_00_5, found.percentile_99_5)
    return {"offset_hu": found.mean, "scale_hu": scale, "clip": [(end - found.mean) / scale for end in ends]}


def _mirror(checkpoint: Mapping[str, Any], plans: Plans) -> list[str]:
    axes = checkpoint.get("inference_allowed_mirroring_axes")
    if axes is None:
        return []
    if not isinstance(axes, list | tuple) or not {int(axis) for axis in axes} <= {0, 1, 2}:
        raise refused("the axes that it may be mirrored along are not 0, 1 and 2")
    return sorted((_MIRRORS[plans.transpose_forward[int(axis)]] for axis in axes), key=_MIRRORS.index)


def _description(plans: Plans, dataset: Dataset, name: str, folds: list[_Fold]) -> dict[str, Any]:
    stem = re.sub(r"[^a-z0-9]+", "-", f"{plans.dataset_name}-{name}".lower()).strip("-")[:64].rstrip("-")
    cases = f"{dataset.training_cases} cases" if dataset.training_cases else "cases"
    said = {
        "name": stem or "nnunet",
        "title": f"{plans.dataset_name} ({name}), nnU-Net v2",
        "training": f"nnU-Net v2 on {cases} of {plans.dataset_name}, {len(folds)} fold(s).",
    }
    return {**said, "licence": dataset.licence} if dataset.licence else said


def _notes(plans: Plans, request: ImportRequest, folds: list[_Fold], name: str) -> Iterator[str]:
    yield f"Configuration {name}; {', '.join(fold.name for fold in folds)} with {folds[0].file.name}."
    replaced = (request.manifest or {}).get("input")
    if plans.image_reader_writer not in _REORIENTING and not (
        isinstance(replaced, Mapping) and "orientation" in replaced
    ):
        yield (
            f"{plans.image_reader_writer} reads images as they are stored; LPS was assumed, as DICOM is stored. If the "
            "training images were stored otherwise, import with the manifest's input.orientation."
        )
    yield "What its trainer may have changed in the network beyond plans.json is noticed by names and shapes alone."
