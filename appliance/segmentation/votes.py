"""What the folds of an ensemble say about one tile, made into one answer.

Everything works on a few planes at a time, in place where the network's answer lies: on a processor they stay in
its cache, on a GPU the whole tile is taken at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from appliance.segmentation.arrays import Arrays
from appliance.segmentation.backends.network import Array

LEAST_HALF = 6.2e-5
"""Smaller numbers are subnormal in half precision: they change next to nothing and take 25 times as long to add."""

Way: TypeAlias = Literal["mean_softmax", "mean_logits", "majority"]


@dataclass(frozen=True, eq=False)
class Votes:
    """How the answers of folds are made comparable, added up, and weighted.

    Attributes:
        way: of the manifest: what is averaged over the folds.
        arrays: where the answers are.
    """

    way: Way
    arrays: Arrays

    def turn(self, logits: Array, *, decide: bool) -> Array | None:
        """Turn one fold's logits (classes, z, y, x) into its votes, in place.

        Args:
            logits: what the fold answered.
            decide: whether to say what the fold decided as well.

        Returns:
            the number of each voxel's likeliest class, uint8 (z, y, x), of equally likely ones the first; None where
            nobody asks.
        """
        xp = self.arrays.xp
        labels = self.arrays.empty(tuple(logits.shape[1:]), "uint8") if decide else None
        for planes in self.chunks(logits):
            chunk = logits[:, planes]
            if labels is not None:
                labels[planes] = winners(chunk, self.arrays)
            if self.way == "mean_softmax":
                self._softmax(chunk)
            elif self.way == "majority":
                won = winners(chunk, self.arrays)
                for number in range(chunk.shape[0]):
                    chunk[number] = xp.astype(won == number, chunk.dtype)
        return labels

    def chunks(self, values: Array) -> Iterator[slice]:
        """Planes (second axis) of an array (classes, z, y, x) that are worked on together."""
        classes, planes, rows, columns = values.shape
        step = self.arrays.planes_at_once(4 * classes * rows * columns, planes)
        for first in range(0, planes, step):
            yield slice(first, min(first + step, planes))

    def add(self, total: Array, votes: Array) -> None:
        """Add one fold's votes to those of the folds before it, in place."""
        for planes in self.chunks(total):
            total[:, planes] += votes[:, planes]

    def weigh(self, total: Array, weights: Sequence[Array], into: Array) -> None:
        """Add votes (classes, z, y, x), weighted by vectors (z), (y) and (x), to the accumulators of their voxels."""
        over_z, over_y, over_x = weights
        plane = over_y[:, None] * over_x
        for planes in self.chunks(total):
            chunk = total[:, planes]
            chunk *= over_z[planes][:, None, None] * plane
            if into.dtype == self.arrays.xp.float16:
                chunk *= self.arrays.xp.abs(chunk) >= LEAST_HALF
            into[:, planes] += chunk

    def _softmax(self, chunk: Array) -> None:
        xp = self.arrays.xp
        chunk -= xp.max(chunk, axis=0)
        chunk[...] = xp.exp(chunk)
        chunk *= 1.0 / xp.sum(chunk, axis=0)


def winners(values: Array, arrays: Arrays) -> Array:
    """The number of the largest of the first axis at each place, uint8; of equally large ones the first."""
    xp = arrays.xp
    best = xp.asarray(values[0], copy=True)
    won = arrays.zeros(tuple(best.shape), "uint8")
    for number in range(1, values.shape[0]):
        better = values[number] > best
        won = xp.where(better, number, won)
        best = xp.maximum(best, values[number])
    return won
