"""Marching squares on masks, all slices of a slab at once.

A *crossing* lies between two neighbouring voxels of one slice, one inside and one outside: halfway, or closer to the
one that is less certain of its side. From each crossing the boundary goes on to exactly one other, so the crossings of
a slab form loops. Going forward, the inside is on the right hand as the image is displayed.

Voxels are numbered through the padded slab: `index = (slice * rows + row) * width + column`. A ring of padding
around each slice keeps every neighbour of a crossing within the slab, and loops within their slice.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Points = NDArray[np.float64]

CLOSEST = 1.0 / 24
"""How close a crossing may come to the centre of a voxel, in steps. Every contour then stays 0.029 steps away from
every centre, so that neither rounding nor leaving out points on nearly straight lines lets a voxel change sides."""


@dataclass(frozen=True, slots=True, eq=False)
class Loops:
    """Closed boundaries, one after the other.

    Attributes:
        slice_indices: slice of each loop, ascending.
        lengths: number of points of each loop.
        points: (column, row) of the points of all loops, shape (sum of lengths, 2).
        fixed: which points are ends of keyhole channels, which are passed twice and must stay where they are.
    """

    slice_indices: Indices
    lengths: Indices
    points: Points
    fixed: NDArray[np.bool_]

    @property
    def starts(self) -> Indices:
        """Place of the first point of each loop."""
        return np.asarray(np.cumsum(self.lengths) - self.lengths)

    def neighbours(self) -> tuple[Indices, Indices]:
        """Places of the points before and after each point of the same loop."""
        return neighbours(self.starts, self.lengths)

    def kept(self, kept: NDArray[np.bool_]) -> "Loops":
        """Leave out all other points; every loop must keep one."""
        lengths = np.add.reduceat(kept, self.starts, dtype=np.int64) if len(self.lengths) else self.lengths
        return Loops(self.slice_indices, lengths, self.points[kept], self.fixed[kept])


def neighbours(starts: Indices, lengths: Indices) -> tuple[Indices, Indices]:
    """Places of the points before and after each point of closed loops that lie one after the other."""
    count = int(lengths.sum())
    before, after = np.arange(-1, count - 1), np.arange(1, count + 1)
    before[starts], after[starts + lengths - 1] = starts + lengths - 1, starts
    return before, after


@dataclass(frozen=True, slots=True, eq=False)
class _Crossings:
    """The two voxels on either side of each crossing, ascending by row and then by column."""

    inside: Indices
    outside: Indices


def trace_loops(voxels: NDArray[np.bool_], certainty: NDArray[np.uint8] | None, *, keyhole: bool) -> Loops:
    """Outline the True voxels of each slice of a slab of shape (z, y, x).

    Voxels that touch by a corner only are outlined apart. With `keyhole`, holes are joined to what surrounds them.
    Without `certainty` all crossings lie halfway.
    """
    padded = np.pad(voxels, ((0, 0), (1, 1), (1, 1)))
    _, rows, width = padded.shape
    crossings = _find_crossings(padded.ravel(), width)
    successors = _find_successors(padded.ravel(), crossings, width)
    firsts = _first_of_loop(successors)
    originals = np.arange(len(successors))
    if keyhole:
        successors, originals, firsts = _join_holes(crossings, successors, firsts)
    order, lengths = _in_order(successors, firsts)
    order = originals[order]
    ordered = _Crossings(crossings.inside[order], crossings.outside[order])
    slice_indices = ordered.inside[np.cumsum(lengths) - lengths] // (rows * width)
    fixed = np.isin(order, originals[len(crossings.inside) :])
    if certainty is None:
        points = _halfway(ordered, rows, width)
    else:
        points = _interpolated(ordered, np.pad(certainty, ((0, 0), (1, 1), (1, 1))), rows, width)
    return Loops(slice_indices, lengths, points - 1.0, fixed)


def corners_of(loops: Loops) -> Loops:
    """Leave out points that lie exactly on the straight line between their neighbours; in half steps that is exact."""
    before, after = loops.neighbours()
    arriving = loops.points - loops.points[before]
    leaving = loops.points[after] - loops.points
    return loops.kept(arriving[:, 0] * leaving[:, 1] != arriving[:, 1] * leaving[:, 0])


def _halfway(crossings: _Crossings, rows: int, width: int) -> Points:
    """Where each crossing lies, padded (column, row): in the middle between its voxels."""
    inside, outside = crossings.inside, crossings.outside
    doubled = np.stack([inside % width + outside % width, (inside // width + outside // width) % (2 * rows)], axis=1)
    return np.asarray(doubled / 2.0)


def _interpolated(crossings: _Crossings, certainty: NDArray[np.uint8], rows: int, width: int) -> Points:
    """Where each crossing lies, padded (column, row): where the certainties of both voxels cancel out.

    Beyond the border of the grid nothing is known, and the crossing lies halfway.
    """
    flat = certainty.ravel()
    sure_inside, sure_outside = (flat[side].astype(np.float64) for side in (crossings.inside, crossings.outside))
    share = np.full(len(flat[crossings.inside]), 0.5)
    np.divide(sure_inside, sure_inside + sure_outside, out=share, where=sure_outside > 0)
    share = share.clip(CLOSEST, 1.0 - CLOSEST)
    step = crossings.outside - crossings.inside
    beside = np.abs(step) == 1
    columns = crossings.inside % width + np.where(beside, step * share, 0.0)
    of_rows = crossings.inside // width % rows + np.where(beside, 0.0, np.sign(step) * share)
    return np.stack([columns, of_rows], axis=1)


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


def _first_of_loop(successors: Indices) -> Indices:
    """Return for each crossing the first crossing of its loop, by looking twice as far ahead in every round."""
    firsts = np.minimum(np.arange(len(successors)), successors)
    ahead = successors
    while True:
        ahead = ahead[ahead]
        earlier = np.minimum(firsts, firsts[ahead])
        if np.array_equal(earlier, firsts):
            return firsts
        firsts = earlier


def _in_order(successors: Indices, firsts: Indices) -> tuple[Indices, Indices]:
    """Line up the loops in the order of their first crossings, each from there on forwards.

    Returns:
        The crossings in that order, and the length of each loop.
    """
    numbers = np.arange(len(successors))
    is_first = firsts == numbers
    # how many steps it is to the first crossing of the loop, by adding up twice as many in every round
    steps = np.where(is_first, 0, 1)
    ahead = np.where(is_first, numbers, successors)
    while not np.array_equal(ahead, firsts):
        steps += steps[ahead]
        ahead = ahead[ahead]
    loops = np.cumsum(is_first) - 1
    loop_of = loops[firsts]
    lengths = np.bincount(loop_of, minlength=int(np.count_nonzero(is_first)))
    starts = np.cumsum(lengths) - lengths
    places = np.where(is_first, starts[loop_of], starts[loop_of] + lengths[loop_of] - steps)
    order = np.empty(len(successors), np.int64)
    order[places] = numbers
    return order, lengths.astype(np.int64)


def _join_holes(crossings: _Crossings, successors: Indices, firsts: Indices) -> tuple[Indices, Indices, Indices]:
    """Let each hole be entered and left by a channel to the left, at the left of its top row.

    A loop begins at its topmost crossing, the leftmost of those, and goes to the left: its second crossing is the left
    end of the top row. The crossing before that in the same row belongs to the boundary around the hole, or to a hole
    that begins higher or farther left, so every chain of channels ends at an outer boundary. Both ends of a channel
    are passed twice: the second passes are crossings of their own, added at the end.

    Returns:
        Successors of all crossings, the crossing that each stands for, and the first crossing of each one's loop.
    """
    tops = np.unique(firsts)
    # a topmost crossing that has the inside above belongs to a hole
    tops = tops[crossings.inside[tops] < crossings.outside[tops]]
    within_row = np.abs(crossings.outside - crossings.inside) == 1
    before_in_row = np.maximum.accumulate(np.where(within_row, np.arange(len(successors)), -1))
    ends = successors[tops]
    starts = before_in_row[ends - 1]
    count = len(successors)
    joined = np.concatenate([successors, np.zeros(2 * len(tops), np.int64)])
    originals = np.concatenate([np.arange(count), np.stack([ends, starts], axis=1).ravel()])
    around = np.arange(count)  # for the first crossing of a hole, the first one of the loop around it
    for hole, (top, end, start) in enumerate(zip(tops.tolist(), ends.tolist(), starts.tolist(), strict=True)):
        end_again, start_again = count + 2 * hole, count + 2 * hole + 1
        joined[end_again], joined[start_again] = start_again, joined[start]
        joined[top], joined[start] = end_again, end
        around[top] = around[firsts[start]]  # holes come in ascending order, so that one is settled
    of_originals = around[firsts]
    return joined, originals, of_originals[originals]


def _keys(first: Indices, second: Indices) -> Indices:
    """Number crossings by the two voxels that they lie between: ascending by row, then by column."""
    return np.asarray(2 * np.minimum(first, second) + (np.abs(first - second) != 1))
