"""What a worker has at hand for every case: settings, rows, spool, and models that stay warm."""

from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from appliance.casework.warm_models import OnEngine, warm_model
from appliance.errors import ModelRefused
from appliance.records import Database
from appliance.segmentation.model_package import is_still, load_package
from appliance.segmentation.opening import WarmModel
from appliance.settings import Settings
from appliance.spool import Spool
from appliance.spool.model_store import ModelStore

log = structlog.get_logger()


@dataclass
class Workbench:
    """What a worker needs for every case; it keeps each model warm until another version of it is active.

    Attributes:
        worker: its name, which no other process has.
        should_stop: whether it was asked to stop.
        ring_part: tells the other workers that a model's part of a case waits; False when nobody can hear it.
        device: where its networks run: "auto", "cpu", "cuda" or "cuda:1".
        on_taken: told the number of the lease of a case that was taken.
        on_step: told of every sign of progress: step, how much of it is done, of how much.
    """

    settings: Settings
    database: Database
    spool: Spool
    worker: str
    should_stop: Callable[[], bool] = lambda: False
    ring_part: Callable[[int, str], bool] = lambda *_: False
    device: str = "auto"
    on_taken: Callable[[int], None] = lambda _: None
    on_step: Callable[[str, int, int], None] = lambda *_: None
    _models: dict[str, WarmModel] = field(default_factory=dict)

    def warm_up(self) -> None:
        """Load the models of all protocols before the first case; a bad one is met again, in words, by its case."""
        for name in sorted({model for protocol in self.settings.protocols.values() for model in protocol.models}):
            try:
                self.model(name)
            except ModelRefused as refused:
                log.warning("model_refused", model=name, reason=refused.reason, sentence=refused.sentence)

    def model(self, name: str, on_engine: OnEngine = lambda *_: None) -> WarmModel:
        """A model's active version, warm; one that another has taken the place of is let go first.

        Args:
            name: of the model.
            on_engine: hears of each engine that has to be examined first; it may raise to stop.

        Raises:
            ModelRefused: the package is missing, invalid or altered.
        """
        folder = ModelStore.of(self.settings).active(name)
        if name in self._models and not is_still(self._models[name].package, folder):
            del self._models[name]
        if name not in self._models:
            self._models[name] = warm_model(self.settings, load_package(folder), self.device, on_engine)
            log.info("model_loaded", model=name, words=self._models[name].words)
        return self._models[name]
