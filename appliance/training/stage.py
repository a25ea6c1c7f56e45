"""One stretch of optimisation, resumable: a trunk or a fold's branch."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from appliance.clock import monotonic_s
from appliance.training.classes import CLASSES
from appliance.training.config import Stage, TrainingConfig
from appliance.training.losses import segmentation_loss
from appliance.training.sampling import TileDataset
from models.unet3d_fast import FastUNet3D

State = dict[str, Tensor]
Progress = Callable[[str, int, int, float], None]
"""Called as (stage name, steps done, steps in all, running loss)."""

_AVERAGE_DECAY = 0.995
"""Weight of the past in the running average of the weights, which is what gets published."""
_WARM_UP_STEPS = 50
_LARGEST_GRADIENT = 2.0
_REPORT_EVERY_STEPS = 25


@dataclass(frozen=True, slots=True)
class StageRun:
    """What a stage needs: its name, plan, tiles, where it starts from and where it keeps its checkpoint."""

    name: str
    stage: Stage
    tiles: TileDataset
    initial: State | None
    checkpoint: Path


def build_network(config: TrainingConfig) -> FastUNet3D:
    """A fresh network of the configured size."""
    return FastUNet3D(len(config.network.channels), len(CLASSES), config.network.features)


def run_stage(run: StageRun, config: TrainingConfig, on_progress: Progress) -> State:
    """Train to the end of the stage, from its checkpoint where there is one; returns the averaged weights."""
    learner = _Learner(run, config)
    learner.restore(run.checkpoint)
    weights = torch.tensor([run.stage.class_weights.get(name, 1.0) for name in CLASSES])
    saved_at_s, running = monotonic_s(), math.nan
    for inputs, classes in _remaining_tiles(run, config.batch, learner.done):
        loss = learner.step(inputs, classes, weights, learning_rate(run.stage, learner.done))
        running = loss if math.isnan(running) else 0.98 * running + 0.02 * loss
        finished = learner.done == run.stage.steps
        if finished or monotonic_s() - saved_at_s > config.checkpoint_every_s:
            learner.save(run.checkpoint)
            saved_at_s = monotonic_s()
        if finished or learner.done % _REPORT_EVERY_STEPS == 1:
            on_progress(run.name, learner.done, run.stage.steps, running)
    return learner.average


def learning_rate(stage: Stage, step: int) -> float:
    """Linear warm-up, then a cosine from the peak to `final_rate` of it."""
    warm = min(1.0, (step + 1) / _WARM_UP_STEPS)
    fall = 0.5 + 0.5 * math.cos(math.pi * step / stage.steps)
    return stage.peak_rate * warm * (stage.final_rate + (1 - stage.final_rate) * fall)


def _remaining_tiles(run: StageRun, batch: int, done: int) -> DataLoader[tuple[Tensor, Tensor]]:
    """Batches from the step after `done` on, rendered by a process of their own."""
    numbers = range(done * batch, run.stage.steps * batch)
    return DataLoader(run.tiles, batch_size=batch, sampler=numbers, num_workers=1, prefetch_factor=8)


class _Learner:
    """A network, its optimiser, the running average of its weights and the number of steps done."""

    def __init__(self, run: StageRun, config: TrainingConfig) -> None:
        torch.manual_seed(config.seed)
        self._half = config.precision == "bfloat16"
        network = build_network(config)
        if run.initial is not None:
            network.load_state_dict(run.initial)
        # The layout in which oneDNN convolves fastest.
        self._network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self._optimiser = torch.optim.AdamW(network.parameters(), run.stage.peak_rate, weight_decay=config.weight_decay)
        self.average: State = {key: value.clone() for key, value in network.state_dict().items()}
        self.done = 0

    def step(self, inputs: Tensor, classes: Tensor, class_weights: Tensor, rate: float) -> float:
        """Learn from one batch; returns its loss."""
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16, enabled=self._half):
            logits = self._network(inputs.to(memory_format=torch.channels_last_3d))
        loss = segmentation_loss(logits.float(), classes.long(), class_weights)
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        size = nn.utils.clip_grad_norm_(self._network.parameters(), _LARGEST_GRADIENT)
        if torch.isfinite(size):
            self._optimiser.step()
        self._follow()
        self.done += 1
        return loss.item()

    @torch.no_grad()
    def _follow(self) -> None:
        decay = min(_AVERAGE_DECAY, (1 + self.done) / (10 + self.done))
        for key, value in self._network.state_dict().items():
            self.average[key].lerp_(value, 1 - decay)

    def save(self, path: Path) -> None:
        """Write a checkpoint; a crash on the way leaves the one before."""
        state = {
            "network": self._network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "average": self.average,
            "done": self.done,
        }
        part = path.with_suffix(".part")
        torch.save(state, part)
        part.replace(path)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint, if there is one."""
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        self._network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.average.update(state["average"])
        self.done = int(state["done"])
