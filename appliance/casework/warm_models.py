"""Models loaded as this box is set: on which device, with which engines, and where findings about them are kept."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from appliance.casework.reference_tiles import reference_tiles
from appliance.segmentation.backends.here import Wishes
from appliance.segmentation.engine_record import EngineRecord
from appliance.segmentation.model_package import ModelPackage
from appliance.segmentation.opening import Gate, WarmModel, open_model
from appliance.settings import Settings

OnEngine: TypeAlias = Callable[[int, int], None]
"""Called before each engine is examined, with how many are done and how many there are."""


def warm_model(
    settings: Settings, package: ModelPackage, device: str, on_engine: OnEngine = lambda *_: None
) -> WarmModel:
    """Load a model on the fastest engine that gives the reference's answers; the first time takes longer.

    Args:
        settings: of this box.
        package: a checked package.
        device: where its networks run: "auto", "cpu", "cuda" or "cuda:1".
        on_engine: hears of each examination; it may raise to stop.

    Raises:
        ModelRefused: a network cannot be run, or not on the manifest's tile and classes.
    """
    worker = settings.worker
    share = worker.memory_share or 1.0
    wishes = Wishes(worker.threads, device, worker.engines, _folder(settings) / "prepared", share)
    return open_model(package, wishes, Gate(reference_tiles, engine_record(settings), on_engine))


def engine_record(settings: Settings) -> EngineRecord:
    """What is known about the engines of this box."""
    return EngineRecord(_folder(settings) / "examined.json")


def _folder(settings: Settings) -> Path:
    return settings.data_dir / "engines"
