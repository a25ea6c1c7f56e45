"""From a model package to a warm model: which engine runs its networks here, and what it falls back on."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from appliance.errors import ModelRefused, Reason
from appliance.segmentation.arrays import host_arrays
from appliance.segmentation.backends import here
from appliance.segmentation.backends.here import Wishes
from appliance.segmentation.backends.network import OutOfMemory
from appliance.segmentation.backends.stepping_down import Rung, SteppingDown
from appliance.segmentation.engine_record import EngineRecord
from appliance.segmentation.ensemble import Ensemble
from appliance.segmentation.free_memory import host_free_bytes
from appliance.segmentation.memory_plan import EngineNeeds, Free, Plan, Scan, plan_memory
from appliance.segmentation.model_package import ModelPackage
from appliance.segmentation.parity import Candidate, Outcome, Tiles, examine

WORTH_IT = 0.95
"""Share of the reference's time that another engine may take at most; gaining less is not worth other rounding."""


@dataclass(frozen=True)
class Examined:
    """An engine and what the gate found out about it."""

    candidate: Candidate
    outcome: Outcome

    @property
    def words(self) -> str:
        """Its name, its time for a tile if that was measured, and what speaks against it."""
        timed = "" if self.outcome.seconds is None else f" ({self.outcome.seconds:.2g} s a tile)"
        against = "" if self.outcome.objection is None else f": {self.outcome.objection}"
        return f"{self.candidate.engine.words}{timed}{against}"


class Gate:
    """Examines the engines of this box for a model, once, and puts them in order.

    Args:
        tiles: makes reference tiles of a model; called only if something has to be examined.
        record: what was found out before.
        on_engine: called before each step, with how many engines are done and how many there are; it may raise to stop.
    """

    def __init__(
        self,
        tiles: Callable[[ModelPackage], Tiles],
        record: EngineRecord,
        on_engine: Callable[[int, int], None] = lambda *_: None,
    ) -> None:
        self._tiles, self._record, self._on_engine = tiles, record, on_engine

    def examined(self, package: ModelPackage, wishes: Wishes) -> list[Examined]:
        """Every engine that may be tried here, the reference last, with what is known or was now found out about it.

        Raises:
            ModelRefused: the reference cannot run the model, or has no room to, or a file of it is missing or altered.
        """
        reference = here.reference(package, wishes.threads)
        candidates = [*here.candidates(package, wishes), reference]
        made: list[Tiles] = []
        found = []
        for done, candidate in enumerate(candidates):
            key = f"{candidate.engine.key}; {wishes.threads} threads; by {reference.engine.version}"
            outcome = self._record.outcome(package.digest, key)
            if outcome is None:
                folds, report = len(package.manifest.folds), partial(self._on_engine, done, len(candidates))
                report()
                made = made or [self._tiles(package) if len(candidates) > 1 else _blank(package)]
                with _room_or_refused(package):
                    outcome = examine(candidate, reference, made[0], folds, report)
                self._record.keep(package.digest, key, outcome)
            found.append(Examined(candidate, outcome))
        return found

    def note(self, package: ModelPackage, words: str) -> None:
        """Keep in words what a model runs on, for whoever asks later."""
        self._record.note(package.digest, words)


class WarmModel:
    """A model whose networks are loaded, used for many scans.

    Args:
        package: a checked package.
        ladder: engines that may be used, the best first, the reference last.
        others: engines that are not used.
        memory_share: how much of the host's free memory a scan may be planned with.

    Raises:
        ModelRefused: MODEL_INVALID if a network cannot be run, MEMORY_TOO_SMALL if no engine has room to load it.
    """

    def __init__(
        self,
        package: ModelPackage,
        ladder: Sequence[Examined],
        others: Sequence[Examined] = (),
        memory_share: float = 1.0,
    ) -> None:
        self.package = package
        self._memory_share = memory_share
        self._ladder, self._others = tuple(ladder), tuple(others)
        with _room_or_refused(package):
            self._networks = tuple(
                SteppingDown(fold + 1, [_rung(one.candidate, fold) for one in ladder])
                for fold in range(len(package.manifest.folds))
            )

    @property
    def words(self) -> str:
        """What it runs on, and why on nothing else."""
        not_used = "".join(f"; not on {one.words}" for one in self._others)
        return f"runs on {self._ladder[0].words}{not_used}"

    @property
    def steps_taken(self) -> list[str]:
        """What was given up since the scan began because memory ran out, one sentence each."""
        return [step for network in self._networks for step in network.steps_taken]

    def plan(self, scan: Scan) -> Plan:
        """How a scan will be run with the memory that is free now.

        Raises:
            SeriesRefused: MEMORY_TOO_SMALL.
        """
        free = Free(int(host_free_bytes() * self._memory_share), self._ladder[0].candidate.free_device_bytes())
        needs = [self._needs(position) for position in range(len(self._ladder))]
        return plan_memory(self.package.manifest, scan, needs, free)

    def ensemble(self, plan: Plan | None = None) -> Ensemble:
        """The networks as one ensemble for one scan: as planned, or one tile at a time on the best engine.

        Raises:
            ModelRefused: MODEL_INVALID if a network is not on the manifest's tile and classes.
        """
        for network in self._networks:
            network.begin(0 if plan is None else plan.engine)
        arrays, batch = host_arrays(), 1
        if plan is not None:
            batch = plan.batch
            if plan.accumulators == "device":
                arrays = self._ladder[plan.engine].candidate.arrays
        return Ensemble(self.package, self._networks, arrays, batch)

    def _needs(self, position: int) -> EngineNeeds:
        engine, outcome = self._ladder[position].candidate.engine, self._ladder[position].outcome
        size = max(path.stat().st_size for path in self.package.fold_paths)
        loaded = all(network.position == position for network in self._networks)
        needs = EngineNeeds(engine.words, engine.is_on_host, size, outcome.host_bytes, outcome.device_bytes)
        return replace(needs, loaded=loaded)


def open_model(package: ModelPackage, wishes: Wishes, gate: Gate) -> WarmModel:
    """Load a model on the engine that is fastest here, of those that give the reference's answers.

    Raises:
        ModelRefused: a network cannot be run, or not on the manifest's tile and classes, or no engine has room for it.
    """
    examined = gate.examined(package, wishes)
    ladder = _ladder(examined, wishes)
    others = [one for one in examined if one not in ladder]
    model = WarmModel(package, ladder, others, wishes.memory_share)
    gate.note(package, model.words)
    return model


def open_ensemble(package: ModelPackage, threads: int) -> Ensemble:
    """Load every fold of a package on the reference engine, which every installation has.

    Args:
        package: a checked package.
        threads: how many CPU threads one network run may use; 0 takes all cores.

    Raises:
        ModelRefused: MODEL_INVALID if a network cannot be run, or not on the manifest's tile and classes.
    """
    return WarmModel(package, [Examined(here.reference(package, threads), Outcome())]).ensemble()


@contextmanager
def _room_or_refused(package: ModelPackage) -> Iterator[None]:
    try:
        yield
    except OutOfMemory as error:
        raise ModelRefused(
            Reason.MEMORY_TOO_SMALL,
            f"the memory does not hold the model {package.manifest.name} and one tile; give the worker more memory",
        ) from error


def _ladder(examined: Sequence[Examined], wishes: Wishes) -> list[Examined]:
    """The best engine, the best on the CPU, and the reference."""
    reference = examined[-1]
    usable = [one for one in examined if one.outcome.objection is None]
    if wishes.engines:
        usable.sort(key=lambda one: _preference(one, wishes.engines))
    else:
        usable.sort(key=lambda one: _seconds(one) / (1.0 if one is reference else WORTH_IT))
    best = usable[0]
    on_host = next(one for one in usable if one.candidate.engine.is_on_host)
    return list(dict.fromkeys([best, on_host, reference]))


def _preference(one: Examined, names: Sequence[str]) -> tuple[int, bool]:
    engine = one.candidate.engine
    return names.index(engine.name) if engine.name in names else len(names), engine.is_on_host


def _seconds(one: Examined) -> float:
    return float("inf") if one.outcome.seconds is None else one.outcome.seconds


def _rung(candidate: Candidate, fold: int) -> Rung:
    return Rung(candidate.engine.words, candidate.arrays, partial(candidate.open, fold))


def _blank(package: ModelPackage) -> Tiles:
    """One tile of zeros: enough to take an engine's time, where there is nothing to compare it with."""
    wanted = package.manifest.input
    return np.zeros((1, len(wanted.channels), *wanted.tile), np.float32)
