"""Tiles of one fixed size over a volume, and how much each counts where they overlap.

Tiles stand on a product grid, so the weights of all tiles along one axis can be made to sum to 1 beforehand. What
is accumulated is then already the weighted mean: no count map, no division.

They come in rows along the first series axis: what lies below the first voxel of the next row is finished.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appliance.segmentation.working_grid import Box, WorkingGrid

SIGMA_FRACTION = 0.125
"""Width of the Gaussian weight as a fraction of the tile (nnU-Net's choice): a network knows least at its edges."""


@dataclass(frozen=True, eq=False)
class Span:
    """What one tile covers of one axis.

    Attributes:
        inside: of the volume.
        inset: the same voxels, within the tile.
        weights: float32, of these voxels; over all spans they sum to 1 at every voxel.
        owned: of the volume; every voxel belongs to exactly one span, the one that sees most around it.
    """

    inside: slice
    inset: slice
    weights: NDArray[np.float32]
    owned: slice


@dataclass(frozen=True, eq=False)
class Tile:
    """One network input, by its spans along the series axes (z, y, x)."""

    spans: tuple[Span, Span, Span]

    @property
    def box(self) -> Box:
        """Which voxels of the volume it covers."""
        z, y, x = (span.inside for span in self.spans)
        return z, y, x

    @property
    def inset(self) -> Box:
        """Where these lie within the tile, if the volume is smaller than the tile."""
        z, y, x = (span.inset for span in self.spans)
        return z, y, x

    @property
    def owned(self) -> Box:
        """Which voxels of `box`, counted from its first, belong to this tile alone."""
        z, y, x = (
            slice(span.owned.start - span.inside.start, span.owned.stop - span.inside.start) for span in self.spans
        )
        return z, y, x


@dataclass(frozen=True, eq=False)
class TileRow:
    """All tiles that begin at one voxel of the first axis.

    Attributes:
        first: that voxel.
        finished: the first voxel of the next row, or the end: so far everything is known after this row.
        tiles: in the order of the other axes.
    """

    first: int
    finished: int
    tiles: tuple[Tile, ...]


def cover(grid: WorkingGrid, tile: Sequence[int], overlap: float, *, peak_above_middle: bool = False) -> list[TileRow]:
    """Cover a grid with evenly spread tiles that overlap by at least `overlap`.

    The tiles meet the same anatomy whichever way the series is stored.

    Args:
        grid: what to cover.
        tile: voxels of a tile along the network's axes (z, y, x).
        overlap: least share of a tile's side that neighbours have in common.
        peak_above_middle: whether weights peak at voxel size // 2 of a tile, as nnU-Net's do, and not in its middle.
    """
    sizes = grid.in_series_axes(tile)
    backwards = grid.in_series_axes(grid.reversed_axes)
    along = [
        spans(length, size, overlap, peak_above_middle=peak_above_middle)
        for length, size in zip(grid.shape, sizes, strict=True)
    ]
    along = [
        _mirrored(forward, length, size) if back else forward
        for forward, length, size, back in zip(along, grid.shape, sizes, backwards, strict=True)
    ]
    ends = [*(span.inside.start for span in along[0][1:]), grid.shape[0]]
    return [
        TileRow(first.inside.start, end, tuple(Tile((first, y, x)) for y, x in itertools.product(*along[1:])))
        for first, end in zip(along[0], ends, strict=True)
    ]


def spans(length: int, size: int, overlap: float, *, peak_above_middle: bool = False) -> list[Span]:
    """Cover an axis of so many voxels with spans of `size`; one alone stands in the middle of its tile."""
    if length <= size:
        before = (size - length) // 2
        whole = slice(0, length)
        return [Span(whole, slice(before, before + length), np.ones(length, np.float32), whole)]
    stride = max(1, math.floor(size * (1 - overlap)))
    count = math.ceil((length - size) / stride) + 1
    starts = np.rint(np.linspace(0, length - size, count)).astype(int).tolist()
    peak = size // 2 if peak_above_middle else (size - 1) / 2
    window = np.exp(-0.5 * ((np.arange(size) - peak) / (SIGMA_FRACTION * size)) ** 2)
    total = np.zeros(length)
    for start in starts:
        total[start : start + size] += window
    borders = [0, *((before + size + after) // 2 for before, after in itertools.pairwise(starts)), length]
    return [
        Span(
            slice(start, start + size),
            slice(0, size),
            (window / total[start : start + size]).astype(np.float32),
            slice(*owned),
        )
        for start, owned in zip(starts, itertools.pairwise(borders), strict=True)
    ]


def _mirrored(forward: list[Span], length: int, size: int) -> list[Span]:
    def turned(side: slice, end: int) -> slice:
        return slice(end - side.stop, end - side.start)

    return [
        Span(turned(one.inside, length), turned(one.inset, size), one.weights[::-1], turned(one.owned, length))
        for one in reversed(forward)
    ]
