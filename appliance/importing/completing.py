"""What a foreign model says, what the person who imports adds, and what nobody said, as the values of a manifest."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from appliance.errors import ModelRefused, Reason
from appliance.importing.converted import Converted, ImportRequest
from appliance.segmentation.manifest import Manifest

_WIDE_LIMITS = {"slice_spacing_mm": [0.5, 6.0], "min_extent_mm": [50.0, 100.0, 100.0]}
_NEEDED = ("classes", "input.spacing_mm", "input.tile", "input.channels", "licence")
_NOT_VALIDATED = "Imported; not validated at this site. Not for clinical use until it is."


def completed(
    converted: Converted, request: ImportRequest, source: str, title: str
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """All of a manifest but its folds, and notes on what was assumed.

    Args:
        converted: what the reader found.
        request: its manifest's values replace those, key by key.
        source: name of the file or folder.
        title: of the format.

    Raises:
        ModelRefused: MODEL_INVALID naming what is still missing.
    """
    notes: list[str] = []
    values = merged(converted.manifest, request.manifest or {})
    values["format"] = 1
    values["name"] = request.name or values.get("name") or name_from(source)
    told = request.version != ImportRequest.version
    values["version"] = request.version if told else values.get("version", request.version)
    if request.licence:
        values["licence"] = request.licence
    _refuse_gaps(values)
    values.setdefault("title", f"{values['name']}, imported")
    values.setdefault("intended_use", _NOT_VALIDATED)
    values.setdefault("training", "The source does not say.")
    values.setdefault("source", f"{title}: {source}")
    values.setdefault("ensemble", "mean_softmax")
    values["input"] = {"overlap": 0.5, "orientation": "LPS", **values["input"]}
    if "limits" not in values:
        values["limits"] = _WIDE_LIMITS
        notes.append("The source states no limits of the scans it was made for; wide ones were taken.")
    if not values.get("rois"):
        values["rois"] = rois_of(values["classes"])
        notes.append("One ROI was made of each class, under the class's name.")
    return values, tuple(notes)


def merged(values: Mapping[str, Any], replacing: Mapping[str, Any]) -> dict[str, Any]:
    """Values with others in their place: objects key by key, everything else as a whole."""
    result = dict(values)
    for key, value in replacing.items():
        old = result.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[key] = merged(old, value) if both and old is not None else value
    return result


def rois_of(classes: Sequence[str]) -> list[dict[str, Any]]:
    """One ROI of each class but the background, named as it is, as far as a ROI's name has room for it."""
    names: list[str] = []
    for number, name in enumerate(classes[1:], start=1):
        made = re.sub(r"[^A-Za-z0-9_~^+\-]+", "_", str(name)).strip("_")[:64]
        names.append(made if made and made not in names else f"class_{number}")
    return [{"name": roi, "classes": [name]} for roi, name in zip(names, classes[1:], strict=True)]


def name_from(source: str) -> str:
    """A package's name from that of a file or folder."""
    stem = re.sub(r"\.(zip|onnx|pth?|ts|ckpt|safetensors)$", "", source.lower())
    return re.sub(r"[^a-z0-9]+", "-", stem).strip("-")[:64] or "imported"


def checked(values: Mapping[str, Any]) -> Manifest:
    """The values as a manifest.

    Raises:
        ModelRefused: MODEL_INVALID naming the first that breaks a rule.
    """
    try:
        return Manifest.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "its manifest"
        raise ModelRefused(
            Reason.MODEL_INVALID, f"{place}: {first['msg']}; correct the manifest values of the import"
        ) from error


def _refuse_gaps(values: Mapping[str, Any]) -> None:
    gaps = []
    for name in _NEEDED:
        place: Any = values
        for key in name.split("."):
            place = place.get(key) if isinstance(place, Mapping) else None
        if not place:
            gaps.append(name)
    if gaps:
        raise ModelRefused(
            Reason.MODEL_INVALID,
            f"neither the model nor the import says {', '.join(gaps)}; add what its authors state, nothing is guessed",
        )
