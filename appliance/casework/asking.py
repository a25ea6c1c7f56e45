"""One model asked about one scan: what it found, what that cost, and how far it is meanwhile."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from appliance.audit import trail
from appliance.casework.contouring import Scan
from appliance.clock import Effort, measured, monotonic_s
from appliance.records import Transaction
from appliance.records.tables import Part, PartState
from appliance.segmentation.model_package import ModelPackage
from appliance.segmentation.opening import WarmModel
from appliance.segmentation.pace import time_left_s
from appliance.segmentation.segment import Segmented
from appliance.segmentation.within_memory import segment_within_memory


@dataclass(frozen=True, eq=False)
class Asked:
    """What a model found in a scan, and what that cost.

    Attributes:
        steps_taken: what was given up on the way because memory ran out or an engine failed, a sentence each.
    """

    package: ModelPackage
    found: Segmented
    effort: Effort
    steps_taken: tuple[str, ...] = ()

    def note(self, tx: Transaction, *, at: datetime, actor: str, case_id: int) -> None:
        """Leave the event, in the transaction that makes it count."""
        manifest = self.package.manifest
        fields = {"model": manifest.name, "version": manifest.version, "folds": len(manifest.folds)}
        cost = {"networks": [spent.fields() for spent in self.found.network_effort], **self.effort.fields()}
        digest = self.package.digest
        if self.steps_taken:
            trail.record(tx, "stepped_down", at=at, actor=actor, case_id=case_id, words="; ".join(self.steps_taken))
        trail.record(tx, "segmented", at=at, actor=actor, case_id=case_id, model_digest=digest, **fields, **cost)


class Headway:
    """How far a model is with a scan; the clock runs from when it is made."""

    def __init__(self, folds: int) -> None:
        self._folds = [0] * folds
        self._began_s = monotonic_s()
        self._fields: dict[str, Any] = {}

    def tile_done(self, fold: int, done: int, total: int) -> None:
        """Count a network run; as `ensemble.OnTile`."""
        self._folds[fold] += 1
        eta_s = time_left_s(done, total, monotonic_s() - self._began_s)
        self._fields = {
            "done": done,
            "total": total,
            "fold": fold + 1,
            "folds": list(self._folds),
            "eta_s": None if eta_s is None else round(eta_s, 1),
        }

    def fields(self) -> dict[str, Any]:
        """Network runs done and in all, the fold that ran last, runs of each fold, and about how many seconds are left.

        Empty before the first run.
        """
        return dict(self._fields)


def ask(
    model: WarmModel, scan: Scan, headway: Headway, on_run: Callable[[], None], on_plan: Callable[[str], None]
) -> Asked:
    """Ask a model about a scan, within the memory that there is.

    Args:
        model: the model, warm.
        scan: the CT.
        headway: counts the network runs.
        on_run: called after each of them; it may raise to stop.
        on_plan: told how the memory will be used, before it is.

    Raises:
        SeriesRefused, ModelRefused: as `segment_within_memory` says.
    """

    def on_tile(fold: int, done: int, total: int) -> None:
        headway.tile_done(fold, done, total)
        on_run()

    effort = Effort()
    with measured(effort):
        found = segment_within_memory(model, scan.volume, scan.series.description, on_tile, on_plan)
    return Asked(model.package, found, effort, tuple(model.steps_taken))


def progress_of_one(model: str, headway: Headway) -> dict[str, Any]:
    """What a case's row says while its only model is asked."""
    return _summed([{"model": model, "state": PartState.WORKING, **headway.fields()}])


def progress_of_parts(parts: Iterable[Part]) -> dict[str, Any]:
    """What a case's row says while several models are asked, each where it is."""
    return _summed([{"model": part.model, "state": part.state, **part.progress} for part in parts])


def _summed(models: list[dict[str, Any]]) -> dict[str, Any]:
    """All models together; the time left is that of the slowest, and unknown while one of them has no figure."""
    open_models = [one for one in models if one["state"] != PartState.DONE]
    left_s = [one.get("eta_s") for one in open_models]
    known_s = [each for each in left_s if each is not None]
    return {
        "done": sum(one.get("done", 0) for one in models),
        "total": sum(one.get("total", 0) for one in models),
        "eta_s": max(known_s, default=0.0) if len(known_s) == len(left_s) else None,
        "models": models,
    }
