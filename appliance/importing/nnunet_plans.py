"""What nnU-Net v2 planned for a data set, read from its `plans.json` and `dataset.json` as plain values.

Nothing that a plan names is looked up or imported: classes of networks, layers, readers and functions are compared
with the names that are known here, and everything else is refused.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from appliance.errors import ModelRefused, Reason

MAX_TEXT_BYTES = 16 * 2**20
_RESAMPLING = "resample_data_or_seg_to_shape"
_IMAGE_ORDERS = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
_LOGIT_ORDERS = {**_IMAGE_ORDERS, "order": 1}

Side = Annotated[int, Field(ge=1, le=512)]
Length = Annotated[float, Field(gt=0, le=100)]


class _Read(BaseModel):
    """Values of a file; what is not asked for may stand there as well."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


_Part = TypeVar("_Part", bound=_Read)


class Intensities(_Read):
    """HU of the structures that were trained on."""

    mean: float
    std: float = Field(ge=0)
    percentile_00_5: float
    percentile_99_5: float


class Plans(_Read):
    """All of `plans.json` that does not depend on the configuration.

    Attributes:
        transpose_forward: which axis of the image (z, y, x) the network sees as its first, second and third.
        intensities: by the number of the channel.
    """

    dataset_name: str
    image_reader_writer: str = "SimpleITKIO"
    transpose_forward: tuple[int, int, int] = (0, 1, 2)
    configurations: dict[str, dict[str, Any]]
    intensities: dict[str, Intensities] = Field(
        validation_alias=AliasChoices(
            "foreground_intensity_properties_per_channel", "foreground_intensity_properties_by_modality"
        )
    )


class Configuration(_Read):
    """One configuration of the plans; lengths and sizes along the network's axes, after `transpose_forward`."""

    patch_size: tuple[Side, ...]
    spacing: tuple[Length, ...]
    normalization_schemes: tuple[str, ...]
    preprocessor_name: str = "DefaultPreprocessor"
    previous_stage: str | None = None
    resampling_fn_data: str = _RESAMPLING
    resampling_fn_data_kwargs: dict[str, Any] = _IMAGE_ORDERS
    resampling_fn_probabilities: str = _RESAMPLING
    resampling_fn_probabilities_kwargs: dict[str, Any] = _LOGIT_ORDERS


class Dataset(_Read):
    """`dataset.json`: the class map, and what kind of image each channel is."""

    labels: dict[str, Any]
    channels: dict[str, str] = Field(validation_alias=AliasChoices("channel_names", "modality"))
    regions_class_order: Any = None
    training_cases: int | None = Field(default=None, validation_alias="numTraining")
    licence: str = Field(default="", validation_alias=AliasChoices("licence", "license"))


def read_json(path: Path, form: type[_Part]) -> _Part:
    """A file of nnU-Net as values of one form.

    Raises:
        ModelRefused: MODEL_INVALID if it is missing, no JSON, or does not say what is needed.
    """
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise refused(f"{path.name} is too large for a description")
        values = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise refused(f"{path.name} is missing") from error
    except (ValueError, RecursionError) as error:
        raise refused(f"{path.name} is not JSON") from error
    return validated(values, form, path.name)


def validated(values: Any, form: type[_Part], place: str) -> _Part:
    """Values that were read, in one form.

    Raises:
        ModelRefused: MODEL_INVALID naming the first that does not fit.
    """
    try:
        return form.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise refused(f"{place}: {where or 'its content'}: {first['msg']}") from error


def configuration_of(plans: Plans, name: str) -> tuple[Configuration, dict[str, Any]]:
    """One configuration with what it inherits, and all that it says in nnU-Net's own words.

    Raises:
        ModelRefused: MODEL_INVALID if the plans do not hold it, or it is none that this engine reproduces.
    """
    values = _inherited(plans, name, ())
    configuration = validated(values, Configuration, f"plans.json: {name}")
    if len(configuration.patch_size) != 3 or len(configuration.spacing) != 3:
        raise refused(f"configuration {name} works on single slices; only 3-D configurations are imported")
    if configuration.previous_stage is not None or "cascade" in name:
        raise refused(f"configuration {name} is the second stage of a cascade; import 3d_fullres or 3d_lowres")
    if configuration.normalization_schemes != ("CTNormalization",):
        schemes = ", ".join(configuration.normalization_schemes)
        raise refused(f"its images are normalised by {schemes or 'nothing'}; only one channel of CT is imported")
    if configuration.preprocessor_name != "DefaultPreprocessor":
        raise refused(f"its preprocessor {configuration.preprocessor_name} is not nnU-Net's own")
    _check_resampling(configuration)
    if sorted(plans.transpose_forward) != [0, 1, 2]:
        raise refused("transpose_forward in plans.json does not name each axis once")
    return configuration, values


def classes_of(dataset: Dataset) -> list[str]:
    """The class of each output channel, by the folder's own class map.

    Raises:
        ModelRefused: MODEL_INVALID for regions that overlap, and for labels with gaps or without background.
    """
    if len(dataset.channels) != 1:
        raise refused(f"it wants {len(dataset.channels)} image channels; only one channel of CT is imported")
    labels = {name: number for name, number in dataset.labels.items() if name != "ignore"}
    if dataset.regions_class_order is not None or any(not isinstance(number, int) for number in labels.values()):
        raise refused("its labels are regions that overlap; only models with one class for each voxel are imported")
    names = sorted(labels, key=lambda name: int(labels[name]))
    if [labels[name] for name in names] != list(range(len(names))) or names[:1] != ["background"]:
        raise refused("the labels in dataset.json are not background = 0 and then 1, 2, 3 and so on")
    return names


def refused(what: str) -> ModelRefused:
    """A refusal of the folder as one sentence."""
    return ModelRefused(Reason.MODEL_INVALID, f"nnU-Net model: {what}; nothing was imported")


def _inherited(plans: Plans, name: str, below: Sequence[str]) -> dict[str, Any]:
    if name in below or name not in plans.configurations:
        raise refused(f"plans.json has no configuration {name}, or one that inherits from itself")
    values = plans.configurations[name]
    parent = values.get("inherits_from")
    return {**_inherited(plans, str(parent), (*below, name)), **values} if parent is not None else dict(values)


def _check_resampling(configuration: Configuration) -> None:
    asked: Sequence[tuple[str, str, Mapping[str, Any], Mapping[str, Any]]] = (
        ("images", configuration.resampling_fn_data, configuration.resampling_fn_data_kwargs, _IMAGE_ORDERS),
        (
            "logits",
            configuration.resampling_fn_probabilities,
            configuration.resampling_fn_probabilities_kwargs,
            _LOGIT_ORDERS,
        ),
    )
    for what, function, orders, known in asked:
        if function != _RESAMPLING or dict(orders) != dict(known):
            raise refused(
                f"its {what} are resampled by {function} with {dict(orders)}, which is not nnU-Net's usual way"
            )
