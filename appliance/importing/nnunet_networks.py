"""nnU-Net's word for a network, turned into the arguments of ours: by an allow-list, name by name."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from appliance.importing.nnunet_plans import refused

PLAIN, RESIDUAL = "PlainConvUNet", "ResidualEncoderUNet"
_ARCHITECTURES = "dynamic_network_architectures.architectures"
KNOWN = {
    f"{_ARCHITECTURES}.unet.{PLAIN}": PLAIN,
    f"{_ARCHITECTURES}.unet.{RESIDUAL}": RESIDUAL,
    f"{_ARCHITECTURES}.residual_unet.{RESIDUAL}": RESIDUAL,
}
"""Every network that is imported, by the names that plans give it."""

_CONVOLUTIONS = {"torch.nn.modules.conv.Conv3d", "torch.nn.Conv3d"}
_NORMS = {
    "torch.nn.modules.instancenorm.InstanceNorm3d": "instance",
    "torch.nn.InstanceNorm3d": "instance",
    "torch.nn.modules.batchnorm.BatchNorm3d": "batch",
    "torch.nn.BatchNorm3d": "batch",
}
_ACTIVATIONS = {
    "torch.nn.LeakyReLU": "leaky_relu",
    "torch.nn.modules.activation.LeakyReLU": "leaky_relu",
    "torch.nn.ReLU": "relu",
    "torch.nn.modules.activation.ReLU": "relu",
}

Count = Annotated[int, Field(ge=1, le=64)]
Features = Annotated[int, Field(ge=1, le=4096)]
Size = Annotated[int, Field(ge=1, le=15)]
Sides = tuple[Size, Size, Size]


class _Said(BaseModel):
    """Arguments as plans hold them; one that is unknown here could change the network, and is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _NormArguments(_Said):
    eps: float = Field(default=1e-5, gt=0)
    affine: bool = False
    momentum: float | None = None  # of training alone


class _ActivationArguments(_Said):
    inplace: bool = False
    negative_slope: float = 0.01


class _Arguments(_Said):
    n_stages: int = Field(ge=2, le=12)
    features_per_stage: tuple[Features, ...] | Features
    conv_op: str
    kernel_sizes: tuple[Sides | Size, ...] | Size
    strides: tuple[Sides | Size, ...] | Size
    n_conv_per_stage: tuple[Count, ...] | Count | None = None
    n_blocks_per_stage: tuple[Count, ...] | Count | None = None
    n_conv_per_stage_decoder: tuple[Count, ...] | Count
    conv_bias: bool = False
    norm_op: str
    norm_op_kwargs: _NormArguments | None = None
    dropout_op: str | None = None  # does nothing outside of training
    dropout_op_kwargs: dict[str, Any] | None = None
    nonlin: str
    nonlin_kwargs: _ActivationArguments | None = None
    deep_supervision: bool = False  # likewise
    nonlin_first: Literal[False] = False
    stem_channels: Features | None = None


def network_arguments(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `models.nnunet.NNUNet` but for channels, classes and axes, as plain JSON values.

    Args:
        configuration: of the plans, with what it inherits; plans from before the key `architecture` are understood.

    Raises:
        ModelRefused: MODEL_INVALID for networks, layers and arguments that are not known here.
    """
    architecture = configuration.get("architecture")
    if architecture is None:
        name, said = _of_old_plans(configuration)
    elif isinstance(architecture, Mapping):
        name = KNOWN.get(str(architecture.get("network_class_name")), "")
        said = architecture.get("arch_kwargs")
        if not name:
            raise _unknown("network", architecture.get("network_class_name"), f"{PLAIN} and {RESIDUAL}")
    else:
        raise refused("plans.json: architecture is not a set of values")
    try:
        arguments = _Arguments.model_validate(said)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if not str(part).startswith(("tuple", "constrained")))
        raise refused(f"plans.json: {where or 'arguments'} of the network: {first['msg']}") from error
    return _translated(arguments, name)


def _translated(said: _Arguments, name: str) -> dict[str, Any]:
    residual, stages = name == RESIDUAL, said.n_stages
    depths = said.n_blocks_per_stage if residual else said.n_conv_per_stage
    if depths is None:
        raise refused("plans.json does not say how deep the stages of the network are")
    if said.conv_op not in _CONVOLUTIONS:
        raise _unknown("convolution", said.conv_op, "Conv3d")
    if said.norm_op not in _NORMS:
        raise _unknown("normalisation", said.norm_op, "InstanceNorm3d and BatchNorm3d")
    if said.nonlin not in _ACTIVATIONS:
        raise _unknown("activation", said.nonlin, "LeakyReLU and ReLU")
    norm, activation = said.norm_op_kwargs or _NormArguments(), said.nonlin_kwargs or _ActivationArguments()
    made: dict[str, Any] = {
        "features": _each(said.features_per_stage, stages, "features_per_stage"),
        "kernels": [_sides(size) for size in _each(said.kernel_sizes, stages, "kernel_sizes")],
        "strides": [_sides(size) for size in _each(said.strides, stages, "strides")],
        "depths": _each(depths, stages, "convolutions"),
        "decoder_depths": _each(said.n_conv_per_stage_decoder, stages - 1, "n_conv_per_stage_decoder"),
        "residual": residual,
        "bias": said.conv_bias,
        "norm": _NORMS[said.norm_op],
        "norm_eps": norm.eps,
        # BatchNorm3d has a scale unless told otherwise, InstanceNorm3d has none.
        "norm_affine": norm.affine or (_NORMS[said.norm_op] == "batch" and "affine" not in norm.model_fields_set),
        "activation": _ACTIVATIONS[said.nonlin],
        "slope": activation.negative_slope,
    }
    if residual and said.stem_channels is not None:
        made["stem_features"] = said.stem_channels
    if any(side % 2 == 0 for kernel in made["kernels"] for side in kernel):
        raise refused("plans.json: kernel_sizes: kernels of an even size are not imported")
    return made


def _of_old_plans(values: Mapping[str, Any]) -> tuple[str, Any]:
    """Name and arguments as plans before the key `architecture` imply them."""
    name = str(values.get("UNet_class_name"))
    if name not in (PLAIN, RESIDUAL):
        raise _unknown("network", name, f"{PLAIN} and {RESIDUAL}")
    try:
        depths = values["n_conv_per_stage_encoder"]
        base, most = int(values["UNet_base_num_features"]), int(values["unet_max_num_features"])
        return name, {
            "n_stages": len(depths),
            "features_per_stage": [min(base * 2**stage, most) for stage in range(min(len(depths), 64))],
            "conv_op": "torch.nn.Conv3d",
            "kernel_sizes": values["conv_kernel_sizes"],
            "strides": values["pool_op_kernel_sizes"],
            "n_conv_per_stage" if name == PLAIN else "n_blocks_per_stage": depths,
            "n_conv_per_stage_decoder": values["n_conv_per_stage_decoder"],
            "conv_bias": True,
            "norm_op": "torch.nn.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        }
    except (KeyError, TypeError, ValueError) as error:
        raise refused("plans.json describes no network") from error


def _each(said: Any, count: int, what: str) -> list[Any]:
    """One value for each stage."""
    values = list(said) if isinstance(said, tuple) else [said] * count
    if len(values) != count:
        raise refused(f"plans.json: {what} of the network: {len(values)} values for {count} stages")
    return values


def _sides(size: Any) -> list[int]:
    return list(size) if isinstance(size, tuple) else [size] * 3


def _unknown(kind: str, name: Any, known: str) -> Exception:
    return refused(f"its {kind} {str(name)[:100]} is not known here; known are {known}")
