"""Marching squares on masks, all slices of a slab at once.

A *crossing* lies halfway between two neighbouring voxels of one slice, one inside and one outside. From each
crossing the boundary goes on to exactly one other, so the crossings of a slab form loops, which are found by
following them. Going forward, the inside is on the right hand as the image is displayed.

Voxels are numbered through the padded slab: `index = (slice * rows + row) * width + column`. A ring of padding
around each slice keeps every neighbour of a crossing within the slab, and loops within their slice.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Loops:
    """Closed boundaries, one after the other.

    Attributes:
        slice_indices: slice of each loop, ascending.
        lengths: number of points of each loop.
        points: (column, row) of the points of all loops, in half steps, shape (sum of lengths, 2).
    """

    slice_indices: Indices
    lengths: Indices
    points: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class _Crossings:
    """The two voxels on either side of each crossing, ascending by row and then by column."""

    inside: Indices
    outside: Indices


def trace_loops(voxels: NDArray[np.bool_], *, keyhole: bool) -> Loops:
    """Outline the True voxels of each slice of a slab of shape (z, y, x).

    Voxels that touch by a corner only are outlined apart. With `keyhole`, holes are joined to what surrounds them.
    """
    padded = np.pad(voxels, ((0, 0), (1, 1), (1, 1)))
    _, rows, width = padded.shape
    crossings = _find_crossings(padded.ravel(), width)
    successors = _find_successors(padded.ravel(), crossings, width).tolist()
    loops = _follow(successors)
    copies = _join_holes(crossings, successors, loops) if keyhole else []
    if copies:
        loops = _follow(successors)
    originals = np.concatenate([np.arange(len(crossings.inside)), np.array(copies, dtype=np.int64)])
    order = originals[np.array([node for loop in loops for node in loop], dtype=np.int64)]
    inside, outside = crossings.inside[order], crossings.outside[order]
    # in half steps a crossing has whole coordinates, so the test for straight lines is exact
    doubled = np.stack([inside % width + outside % width, (inside // width + outside // width) % (2 * rows)], axis=1)
    lengths = np.array([len(loop) for loop in loops], dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    kept = _is_corner(doubled, starts, lengths)
    kept_lengths = np.add.reduceat(kept, starts, dtype=np.int64) if len(starts) else lengths
    return Loops(inside[starts] // (rows * width), kept_lengths, doubled[kept] / 2.0 - 1.0)


def _find_crossings(flat: NDArray[np.bool_], width: int) -> _Crossings:
    beside = np.flatnonzero(flat[1:] != flat[:-1])
    below = np.flatnonzero(flat[width:] != flat[:-width])
    first = np.concatenate([beside, below])
    second = np.concatenate([beside + 1, below + width])
    order = np.argsort(_keys(first, second), kind="stable")
    first, second = first[order], second[order]
    is_inside = flat[first]
    return _Crossings(np.where(is_inside, first, second), np.where(is_inside, second, first))


def _find_successors(flat: NDArray[np.bool_], crossings: _Crossings, width: int) -> Indices:
    """Return for each crossing the index of the next one, in the square of four voxels that lies ahead.

    Of the two voxels ahead, the one beside the inside decides first: if it is outside, the boundary turns towards
    the inside, even where the other one is inside. That keeps voxels apart that touch by a corner.
    """
    inside, outside = crossings.inside, crossings.outside
    across = outside - inside  # ±1 within a row, ±width between rows
    ahead = np.where(np.abs(across) == 1, across * width, -np.sign(across))
    ahead_inside, ahead_outside = inside + ahead, outside + ahead
    turns_in = ~flat[ahead_inside]
    turns_out = flat[ahead_outside]
    next_inside = np.where(turns_in, inside, np.where(turns_out, ahead_outside, ahead_inside))
    next_outside = np.where(turns_in, ahead_inside, np.where(turns_out, outside, ahead_outside))
    return np.searchsorted(_keys(inside, outside), _keys(next_inside, next_outside))


def _follow(successors: list[int]) -> list[list[int]]:
    """Split the crossings into loops; each begins with its first crossing, and the loops are in order of those."""
    seen = bytearray(len(successors))
    loops = []
    for start in range(len(successors)):
        if seen[start]:
            continue
        loop = []
        node = start
        while not seen[node]:
            seen[node] = 1
            loop.append(node)
            node = successors[node]
        loops.append(loop)
    return loops


def _join_holes(crossings: _Crossings, successors: list[int], loops: list[list[int]]) -> list[int]:
    """Change `successors` so that each hole is entered and left by a channel to the left, at the left of its top row.

    A loop begins at its topmost crossing, the leftmost of those, and goes to the left: its second crossing is the left
    end of the top row. The crossing before that in the same row belongs to the boundary around the hole, or to a hole
    that begins higher or farther left, so every chain of channels ends at an outer boundary. Both ends of a channel
    are passed twice: the second passes are new nodes, and the crossings that they repeat are returned.
    """
    copies: list[int] = []
    within_row = np.abs(crossings.outside - crossings.inside) == 1
    before_in_row = np.maximum.accumulate(np.where(within_row, np.arange(len(successors)), -1))
    for loop in loops:
        if crossings.inside[loop[0]] > crossings.outside[loop[0]]:
            continue  # its topmost crossing has the outside above: an outer boundary
        top, end = loop[0], loop[1]
        start = int(before_in_row[end - 1])
        end_again, start_again = len(successors), len(successors) + 1
        copies += [end, start]
        successors += [start_again, successors[start]]
        successors[top], successors[start] = end_again, end
    return copies


def _is_corner(points: Indices, starts: Indices, lengths: Indices) -> NDArray[np.bool_]:
    """Tell which points of the loops do not lie on the straight line between their neighbours."""
    following = np.arange(1, len(points) + 1)
    following[starts + lengths - 1] = starts
    steps = points[following] - points
    before = np.empty_like(steps)
    before[following] = steps
    return np.asarray(before[:, 0] * steps[:, 1] != before[:, 1] * steps[:, 0])


def _keys(first: Indices, second: Indices) -> Indices:
    """Number crossings by the two voxels that they lie between: ascending by row, then by column."""
    return np.asarray(2 * np.minimum(first, second) + (np.abs(first - second) != 1))
