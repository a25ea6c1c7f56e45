"""The gate before every engine: it is used only where its labels are those of the reference.

The reference is ONNX Runtime on the CPU in float32. Another engine, device or precision has to agree with it on
reference tiles, fold by fold: Dice of at least 0.999 for every class that occurs, logits that do not drift, and
numbers throughout. Engines in half precision have been seen to answer background everywhere; where the reference
tiles show one class only, the logits alone can tell.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from appliance.clock import Effort, measured
from appliance.errors import ModelRefused, Reason
from appliance.segmentation.arrays import Arrays, to_host
from appliance.segmentation.backends.engine import Engine, EngineUnusable
from appliance.segmentation.backends.network import Network, OutOfMemory
from appliance.segmentation.free_memory import peak_measured

LEAST_DICE = 0.999
LARGEST_DRIFT = 0.05
"""Root mean square of the logits' differences, in standard deviations of the logits."""

TIMED_RUNS = 3

Tiles: TypeAlias = NDArray[np.float32]
"""Normalised channels of reference tiles, (tiles, channels, z, y, x)."""


@dataclass(frozen=True)
class Candidate:
    """An engine that can be tried.

    Attributes:
        engine: what it is.
        arrays: where its tiles and logits live.
        open: loads one fold, by its number from 0.
        free_device_bytes: free memory of its GPU; 0 on the host.
    """

    engine: Engine
    arrays: Arrays
    open: Callable[[int], Network]
    free_device_bytes: Callable[[], int] = lambda: 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the gate found out about one engine for one model.

    Attributes:
        objection: why it is not used; None if it may be.
        least_dice: against the reference, of all folds and classes.
        seconds: median time for one tile.
        host_bytes: what one fold and one tile took of the host's memory.
        device_bytes: and of the GPU's.
        lasting: whether the same is to be expected next time; a full GPU may be free by then.
    """

    objection: str | None = None
    least_dice: float | None = None
    seconds: float | None = None
    host_bytes: int | None = None
    device_bytes: int | None = None
    lasting: bool = True


class Comparison:
    """How far one fold's answers on some engine are from the reference's, tile after tile.

    Args:
        classes: how many the network has.
    """

    def __init__(self, classes: int) -> None:
        self._pairs = np.zeros((classes, classes), np.int64)  # voxels, by the label of the reference and of the other
        self._difference = self._sum = self._square = 0.0
        self._values = 0
        self._finite = True

    def add(self, reference: NDArray[np.float32], answer: NDArray[np.float32]) -> None:
        """Compare logits of the same tiles, (B, classes, z, y, x)."""
        self._finite = self._finite and answer.shape == reference.shape and bool(np.isfinite(answer).all())
        if not self._finite:
            return
        classes = len(self._pairs)
        pairs = reference.argmax(1).astype(np.int64) * classes + answer.argmax(1)
        self._pairs += np.bincount(pairs.ravel(), minlength=classes**2).reshape(classes, classes)
        for k in range(classes):  # one class at a time: the sums need double precision
            logits = reference[:, k].astype(np.float64)
            self._difference += float(np.square(logits - answer[:, k]).sum())
            self._sum += float(logits.sum())
            self._square += float(np.square(logits).sum())
            self._values += logits.size

    @property
    def least_dice(self) -> float:
        """Dice of the class that agrees least, of those that occur in either answer."""
        both, either = np.diag(self._pairs), self._pairs.sum(0) + self._pairs.sum(1)
        occurs = either > 0
        return float((2 * both[occurs] / either[occurs]).min()) if occurs.any() else 0.0

    @property
    def drift(self) -> float:
        """Root mean square of the differences, in standard deviations of the reference's logits."""
        if self._difference == 0:
            return 0.0
        variance = self._square / self._values - (self._sum / self._values) ** 2
        return float(np.sqrt(self._difference / self._values / variance)) if variance > 0 else float("inf")

    @property
    def objection(self) -> str | None:
        """Why the engine may not be used for this fold; None if it may."""
        if not self._finite:
            return "it answers with values that are not numbers"
        if self.least_dice < LEAST_DICE:
            return f"its labels are not the reference's (Dice {self.least_dice:.4f}, needed {LEAST_DICE})"
        if self.drift > LARGEST_DRIFT:
            return f"its logits are not the reference's (off by {self.drift:.1%}, at most {LARGEST_DRIFT:.0%})"
        return None


def examine(
    candidate: Candidate,
    reference: Candidate,
    tiles: Tiles,
    folds: int,
    on_fold: Callable[[], None] = lambda: None,
) -> Outcome:
    """Compare an engine with the reference on every fold; take its time and its memory on the first.

    Args:
        candidate: the engine; the reference itself is only timed.
        reference: ONNX Runtime on the CPU.
        tiles: reference tiles.
        folds: how many the model has.
        on_fold: called before each of them; it may raise to stop.

    Raises:
        ModelRefused: the reference cannot run the model, or a file of it is missing or altered.
        OutOfMemory: the reference has no room for one tile.
    """
    if candidate is reference:
        return _measured(candidate, tiles)
    try:
        taken = _measured(candidate, tiles)
        worst = 1.0
        for fold in range(folds):
            on_fold()
            found = _compared(candidate, reference.open(fold), tiles, fold)
            worst = min(worst, found.least_dice)
            if found.objection is not None:
                return replace(taken, objection=f"fold {fold + 1}: {found.objection}", least_dice=worst)
        return replace(taken, least_dice=worst)
    except EngineUnusable as unusable:
        return Outcome(objection=str(unusable))
    except OutOfMemory:
        return Outcome(objection="there was no room for one tile", lasting=False)
    except ModelRefused as refused:
        if refused.reason is not Reason.MODEL_INVALID:
            raise  # a file that is missing or altered stops the model, whichever engine meets it first
        return Outcome(objection=refused.sentence)


def _measured(candidate: Candidate, tiles: Tiles) -> Outcome:
    free_before = candidate.free_device_bytes()
    efforts = [Effort() for _ in range(TIMED_RUNS)]
    with peak_measured() as taken:
        network = candidate.open(0)
        if network.input_shape[1:] != tiles.shape[1:]:
            raise ModelRefused(
                Reason.MODEL_INVALID,
                f"a network takes {network.input_shape}, the manifest's tile is {tiles.shape[1:]}; "
                "publish the package again",
            )
        tile = candidate.arrays.array(tiles[:1])
        network.run(tile)  # the first run of a shape chooses algorithms
        candidate.arrays.wait()
        for effort in efforts:
            with measured(effort):
                network.run(tile)
                candidate.arrays.wait()
    return Outcome(
        seconds=median(effort.seconds for effort in efforts),
        host_bytes=taken.host_bytes,
        device_bytes=max(0, free_before - candidate.free_device_bytes()),
    )


def _compared(candidate: Candidate, reference: Network, tiles: Tiles, fold: int) -> Comparison:
    network, comparison = candidate.open(fold), None
    for number in range(len(tiles)):
        tile = tiles[number : number + 1]
        expected = reference.run(tile)
        comparison = comparison or Comparison(expected.shape[1])
        comparison.add(expected, to_host(network.run(candidate.arrays.array(tile))))
    if comparison is None:
        raise ValueError("there are no reference tiles")
    return comparison
