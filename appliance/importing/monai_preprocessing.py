"""What a MONAI bundle does to a scan before its network sees it, in the words of a manifest."""

from collections.abc import Mapping
from typing import Any

from appliance.errors import ModelRefused, Reason
from appliance.importing.monai_config import BundleConfig

_NO_CHANGE = frozenset(
    {
        "AddChanneld",
        "AsChannelFirstd",
        "CastToTyped",
        "DeleteItemsd",
        "EnsureChannelFirstd",
        "EnsureTyped",
        "LoadImaged",
        "SpatialPadd",
        "ToDeviced",
        "ToTensord",
    }
)
_WIDE = 1e5
"""No CT number is as large: the ends of a window that clips nothing."""
_LARGEST_OVERLAP = 0.75


def network_input(config: BundleConfig, told: Mapping[str, Any], name: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A manifest's `input` from a bundle's preprocessing and inferer, and notes on what is done otherwise here.

    Args:
        config: of the bundle.
        told: values of the manifest's `input` that the import was told; what they hold needs not be readable here.
        name: of the configuration, for sentences.

    Raises:
        ModelRefused: MODEL_UNSAFE for a step that is not known; MODEL_INVALID for one without a counterpart.
    """
    values: dict[str, Any] = {"padding": "zero", "crop": "whole"}
    notes = ["MONAI samples a scan between its nearest voxels; here each voxel is the mean of what it covers."]
    for step in _steps(config.get("preprocessing"), name):
        target = _target(step)
        if target in _NO_CHANGE:
            continue
        if target == "Orientationd":
            values["orientation"] = _orientation(step, name)
        elif target == "Spacingd":
            values["spacing_mm"] = _spacing(step, name)
        elif target in ("ScaleIntensityRanged", "NormalizeIntensityd"):
            if "channels" in values:
                raise _invalid(name, "scales intensities twice")
            values["channels"] = [_window(step, name) if target == "ScaleIntensityRanged" else _normalised(step, name)]
        elif target == "CropForegroundd":
            notes.append("The bundle crops scans to their foreground first; here the whole scan is looked at.")
        elif target in ("ScaleIntensityd", "ScaleIntensityRangePercentilesd", "HistogramNormalized"):
            raise _invalid(name, f"scales each scan by its own intensities ({target}), which has no counterpart here")
        else:
            raise ModelRefused(
                Reason.MODEL_UNSAFE,
                f"{name} has a step {str(step.get('_target_'))[:80]!r} that is not known; nothing was imported",
            )
    if "orientation" not in values and "orientation" not in told:
        raise _invalid(name, "does not say how its scans lie; add input.orientation to the import")
    notes += _inferer(config, values, name)
    _check_answer(config, name)
    return values, tuple(notes)


def _steps(part: Any, name: str) -> list[Mapping[str, Any]]:
    if part is None:
        return []
    steps = part.get("transforms") if isinstance(part, Mapping) else part
    if not isinstance(steps, list) or not all(isinstance(step, Mapping) for step in steps):
        raise _invalid(name, "has steps that are no list of objects")
    return [step for step in steps if step.get("_disabled_") is not True]


def _target(step: Mapping[str, Any]) -> str:
    """A step's class in its dictionary form, where MONAI knows it under several names; anything else as it is."""
    module, _, name = str(step.get("_target_", "")).rpartition(".")
    name = f"{name[: -len('Dict')]}d" if name.endswith("Dict") else name
    name = f"{name[: -len('D')]}d" if name.endswith("D") else name
    return name if not module or module.startswith("monai.transforms") else f"{module}.{name}"


def _orientation(step: Mapping[str, Any], name: str) -> str:
    axes = str(step.get("axcodes", ""))
    if step.get("as_closest_canonical"):
        axes = "RAS"
    if len(axes) != 3 or axes[0] not in "LR" or axes[1] not in "PA" or axes[2] not in "SI":
        raise _invalid(name, f"turns scans to {axes[:8]!r}; axes in another order than x, y, z are not taken")
    return axes


def _spacing(step: Mapping[str, Any], name: str) -> list[float]:
    """MONAI's (x, y, z) as (z, y, x)."""
    sides = step.get("pixdim")
    sides = [sides] * 3 if isinstance(sides, int | float) else sides
    if not isinstance(sides, list) or len(sides) != 3 or not all(isinstance(side, int | float) for side in sides):
        raise _invalid(name, "states no spacing of three numbers")
    return [float(side) for side in reversed(sides)]


def _window(step: Mapping[str, Any], name: str) -> dict[str, Any]:
    """(HU - a_min) / (a_max - a_min) * (b_max - b_min) + b_min, as offset and scale."""
    try:
        a_min, a_max = float(step["a_min"]), float(step["a_max"])
        b_min, b_max = float(step.get("b_min") or 0.0), float(1.0 if step.get("b_max") is None else step["b_max"])
        scale = (a_max - a_min) / (b_max - b_min)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise _invalid(name, "states no window of four numbers") from error
    clip = [b_min, b_max] if step.get("clip") else [-_WIDE, _WIDE]
    return {"offset_hu": a_min - b_min * scale, "scale_hu": scale, "clip": clip}


def _normalised(step: Mapping[str, Any], name: str) -> dict[str, Any]:
    stated: list[Any] = [step.get("subtrahend"), step.get("divisor")]
    numbers = [value[0] if isinstance(value, list) and len(value) == 1 else value for value in stated]
    if step.get("nonzero") or not all(isinstance(value, int | float) for value in numbers):
        raise _invalid(name, "normalises each scan by its own mean and deviation, which has no counterpart here")
    return {"offset_hu": float(numbers[0]), "scale_hu": float(numbers[1]), "clip": [-_WIDE, _WIDE]}


def _inferer(config: BundleConfig, values: dict[str, Any], name: str) -> list[str]:
    """Tile and overlap, and what is done otherwise here."""
    inferer = config.get("inferer", all_of_it=False)
    if not isinstance(inferer, Mapping) or str(inferer.get("_target_")).rpartition(".")[2] != "SlidingWindowInferer":
        return ["The bundle states no sliding window; the tile is the one that the import was told."]
    sides = inferer.get("roi_size")
    sides = [sides] * 3 if isinstance(sides, int) else sides
    if not isinstance(sides, list) or len(sides) != 3 or not all(isinstance(side, int) for side in sides):
        raise _invalid(name, "states no tile of three numbers")
    values["tile"] = list(reversed(sides))
    overlap = inferer.get("overlap", 0.25)
    values["overlap"] = min(float(overlap), _LARGEST_OVERLAP) if isinstance(overlap, int | float) else 0.5
    if inferer.get("mode", "constant") == "gaussian":
        return []
    return ["The bundle adds overlapping tiles up evenly; here their middles weigh more (Gaussian)."]


def _check_answer(config: BundleConfig, name: str) -> None:
    """Classes that exclude each other are what is decided here; independent ones would be decided otherwise."""
    for step in _steps(config.get("postprocessing", all_of_it=False), name):
        if step.get("sigmoid") or ("threshold" in step and step["threshold"] is not None):
            raise _invalid(
                name, "decides each channel for itself (sigmoid); only classes that exclude each other are taken"
            )


def _invalid(name: str, what: str) -> ModelRefused:
    return ModelRefused(Reason.MODEL_INVALID, f"{name} {what}; nothing was imported")
