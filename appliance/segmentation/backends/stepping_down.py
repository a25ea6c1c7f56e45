"""One fold that goes on when memory runs out: first with fewer tiles at once, then on the next engine.

The tile itself never gets smaller: that would change the masks. Fewer tiles at once give the same logits, and the
next engine has passed the parity gate or is the reference itself. An engine that fails is left like one that is full.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import array_api_compat
import numpy as np

from appliance.segmentation.arrays import Arrays, to_host
from appliance.segmentation.backends.engine import EngineUnusable
from appliance.segmentation.backends.network import Array, Network, OutOfMemory


@dataclass(frozen=True)
class Rung:
    """An engine to fall back on.

    Attributes:
        engine: what it is, in words.
        arrays: where its tiles and logits live.
        open: loads the fold; called when the rung is reached, and not before.
    """

    engine: str
    arrays: Arrays
    open: Callable[[], Network]


class SteppingDown:
    """One fold on the first rung that has room for it.

    Args:
        fold: its number, for people, from 1.
        rungs: the best first; at least one.

    Raises:
        OutOfMemory: no rung has room to load it.

    Attributes:
        engine: what runs it now, in words.
        steps_taken: what was given up since the scan began and why, one sentence each.
        position: of the rung that it is on.
    """

    def __init__(self, fold: int, rungs: Sequence[Rung]) -> None:
        self.steps_taken: list[str] = []
        self.position, self.engine = 0, rungs[0].engine
        self._fold, self._rungs = fold, tuple(rungs)
        self._at_once: int | None = None
        self._network: Network | None = None
        network = self._opened()
        self.input_shape, self.output_shape = network.input_shape, network.output_shape

    def begin(self, position: int) -> None:
        """Begin another scan on a rung, whatever was given up for the one before."""
        self.steps_taken = []
        self._at_once = None
        if position != self.position:
            self._stand_on(position)

    def run(self, tiles: Array) -> Array:
        """Map normalised channels (B, channels, z, y, x) to logits (B, classes, z, y, x), where the tiles live.

        Raises:
            OutOfMemory: one tile alone does not fit the last rung.
        """
        logits, done = None, 0
        while done < len(tiles):
            count = min(self._at_once or len(tiles), len(tiles) - done)
            try:
                answer = self._asked(tiles[done : done + count])
                if count == len(tiles):
                    return answer
                logits = _room_for(len(tiles), answer) if logits is None else logits
                logits[done : done + count] = answer
                done += count
            except OutOfMemory:
                self._step_down(count)
            except EngineUnusable as unusable:
                self._next_engine(str(unusable), unusable)
        return logits

    def _asked(self, tiles: Array) -> Array:
        """Ask the tiles where this rung lives, and bring the answer to where they came from."""
        network, arrays = self._opened(), self._rungs[self.position].arrays
        if isinstance(tiles, np.ndarray) == (arrays.device == "cpu"):
            return network.run(tiles)
        answer = to_host(network.run(arrays.array(to_host(tiles))))
        if isinstance(tiles, np.ndarray):
            return answer
        xp = array_api_compat.array_namespace(tiles)
        return xp.asarray(answer, device=array_api_compat.device(tiles))

    def _opened(self) -> Network:
        while self._network is None:
            try:
                self._network = self._rungs[self.position].open()
            except (OutOfMemory, EngineUnusable) as error:
                self._next_engine("it does not fit" if isinstance(error, OutOfMemory) else str(error), error)
        return self._network

    def _step_down(self, count: int) -> None:
        """Give up half of the tiles at once, or the engine where it was one tile already.

        Raises:
            OutOfMemory: there is nothing left to give up.
        """
        if count == 1:
            error = OutOfMemory(f"fold {self._fold} on {self.engine}: one tile does not fit, and no engine is left")
            self._next_engine("one tile does not fit", error)
            return
        self._at_once = count // 2
        self._say(f"{count} tiles at once do not fit, went on with {self._at_once}")

    def _next_engine(self, why: str, otherwise: Exception) -> None:
        """Go on with the next engine; raise `otherwise` if there is none."""
        if self.position + 1 == len(self._rungs):
            raise otherwise
        self._say(f"{why}, went on with {self._rungs[self.position + 1].engine}")
        self._at_once = None
        self._stand_on(self.position + 1)

    def _stand_on(self, position: int) -> None:
        self._network = None  # what it holds is free before the next one is loaded
        self.position, self.engine = position, self._rungs[position].engine

    def _say(self, what: str) -> None:
        self.steps_taken.append(f"fold {self._fold} on {self.engine}: {what}")


def _room_for(count: int, answer: Array) -> Array:
    """An array for so many tiles' logits, where those of the first ones are."""
    xp = array_api_compat.array_namespace(answer)
    return xp.empty((count, *answer.shape[1:]), dtype=answer.dtype, device=array_api_compat.device(answer))
