"""Tiles of one fixed size over a volume, and how much each counts where they overlap.

Tiles stand on a product grid, so the weights of all tiles along one axis can be made to sum to 1 beforehand. What
is accumulated is then already the weighted mean: no count map, no division.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appliance.segmentation.working_grid import Box

SIGMA_FRACTION = 0.125
"""Width of the Gaussian weight as a fraction of the tile (nnU-Net's choice): a network knows least at its edges."""


@dataclass(frozen=True, eq=False)
class _Span:
    inside: slice  # of the volume
    inset: slice  # the same voxels, within the tile
    weights: NDArray[np.float64]  # of these voxels; over all spans they sum to 1 at every voxel


@dataclass(frozen=True, eq=False)
class Tile:
    """One network input.

    Attributes:
        box: which voxels of the volume it covers, (z, y, x).
        inset: where these lie within the tile, if the volume is smaller than the tile.
        weights: float32 (z, y, x) of the box's shape; over all tiles they sum to 1 at every voxel.
    """

    box: Box
    inset: Box
    weights: NDArray[np.float32]


def cover(shape: tuple[int, ...], tile: tuple[int, ...], overlap: float) -> list[Tile]:
    """Cover a volume of `shape` (z, y, x) with evenly spread tiles that overlap by at least `overlap`."""
    axes = [_spans(length, size, overlap) for length, size in zip(shape, tile, strict=True)]
    return [
        Tile(
            (z.inside, y.inside, x.inside),
            (z.inset, y.inset, x.inset),
            np.einsum("z,y,x->zyx", z.weights, y.weights, x.weights).astype(np.float32),
        )
        for z, y, x in itertools.product(*axes)
    ]


def cut(volume: NDArray[np.float32], tile: Tile, shape: tuple[int, ...], padding: float) -> NDArray[np.float32]:
    """Cut one tile of `shape` out of a volume (z, y, x); beyond the volume it holds `padding`."""
    piece = np.full(shape, padding, np.float32)
    piece[tile.inset] = volume[tile.box]
    return piece


def _spans(length: int, size: int, overlap: float) -> list[_Span]:
    if length <= size:
        before = (size - length) // 2
        return [_Span(slice(0, length), slice(before, before + length), np.ones(length))]
    stride = max(1, math.floor(size * (1 - overlap)))
    count = math.ceil((length - size) / stride) + 1
    starts = np.rint(np.linspace(0, length - size, count)).astype(int).tolist()
    window = np.exp(-0.5 * ((np.arange(size) - (size - 1) / 2) / (SIGMA_FRACTION * size)) ** 2)
    total = np.zeros(length)
    for start in starts:
        total[start : start + size] += window
    return [_Span(slice(start, start + size), slice(0, size), window / total[start : start + size]) for start in starts]
