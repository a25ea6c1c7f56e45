"""What a training run is: read once from a TOML file, frozen, an unknown key refused."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from appliance.training.classes import CLASSES

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


def _known_class(name: str) -> str:
    if name not in CLASSES:
        raise ValueError(f"{name} is no class of the network; they are {', '.join(CLASSES)}")
    return name


ClassName = Annotated[str, AfterValidator(_known_class)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PhantomSet(_Frozen):
    """Consecutive seeds, one phantom each."""

    first_seed: Annotated[int, Field(ge=0)]
    count: Count

    @property
    def seeds(self) -> range:
        """Every seed of the set."""
        return range(self.first_seed, self.first_seed + self.count)


class InputChannel(_Frozen):
    """One CT window: clip((HU - offset) / scale, low, high)."""

    offset_hu: float
    scale_hu: Positive
    clip: tuple[float, float]


class NetworkConfig(_Frozen):
    """Size of the network, and the tile (voxels z, y, x) that it will run on in the appliance."""

    features: tuple[Count, ...]
    tile: tuple[Count, Count, Count]
    spacing_mm: Positive
    overlap: Annotated[float, Field(ge=0, lt=1)]
    channels: tuple[InputChannel, ...]


class Stage(_Frozen):
    """One stretch of optimisation with a one-cycle learning rate that falls to `final_rate` of its peak."""

    steps: Count
    tile: tuple[Count, Count, Count]
    """Voxels (z, y, x) that one training sample covers; smaller than the network's own tile wastes less on air."""
    peak_rate: Positive
    final_rate: Annotated[float, Field(ge=0, le=1)]
    class_weights: dict[ClassName, Positive] = {}
    """Weight of a class in the cross-entropy; a class that is not named has weight 1."""


class TrainingConfig(_Frozen):
    """A whole run: a trunk that all folds share, then one branch per fold."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    version: str
    seed: Annotated[int, Field(ge=0)]
    batch: Count
    precision: Literal["float32", "bfloat16"]
    weight_decay: Annotated[float, Field(ge=0)]
    threads: Count
    """Processor threads of one training process; one more process renders its tiles."""
    checkpoint_every_s: Positive
    phantoms: PhantomSet
    held_out: PhantomSet
    network: NetworkConfig
    trunk: Stage
    fold: Stage
    folds: Annotated[int, Field(ge=1, le=8)] = 3


def load_training_config(path: Path) -> TrainingConfig:
    """Read a training configuration.

    Raises:
        pydantic.ValidationError: a key is unknown, missing or out of range.
        tomllib.TOMLDecodeError: the file is not TOML.
    """
    return TrainingConfig.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
