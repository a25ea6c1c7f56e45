"""Smoothing and simplifying closed contours, by no more than a stated distance.

Each point of a traced contour lies on the line between two neighbouring voxel centres, one inside and one outside.
Smoothing moves it along that line alone, so that no voxel changes sides and no contour comes to cross another.
Simplifying leaves points out. The ends of keyhole channels stay, so that a channel is passed twice by the same way.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from appliance.dicom.contour_tracing import CLOSEST, Indices, Loops, Points, neighbours

STRAIGHT = 0.015
"""In pixels: points closer than this to the line between their neighbours lie on it. Half of how close contours may
come to voxel centres, the rest is left for the rounding of coordinates."""

MAX_SIMPLIFYING = 0.33
"""In pixels, for contours that run halfway: those lie 0.35 pixels from every centre, and 0.7 from each other."""

MAX_SIMPLIFYING_BETWEEN = 0.1
"""In pixels, for contours that run anywhere between voxels."""

_ROUNDS = 6
"""Of leaving out every second point: what remains may stand for 64 points."""

_SMOOTHING_STEPS = 10


def smooth(loops: Loops, limit: float) -> Loops:
    """Move each point towards the middle of its neighbours, again and again, but no farther than `limit`.

    Steps inwards alternate with slightly longer steps outwards, so that nothing shrinks (Taubin, 1995).
    """
    before, after = loops.neighbours()
    original = loops.points
    below = np.floor(original)
    movable = (original != below) & ~loops.fixed[:, np.newaxis]  # a point lies between centres along one axis
    low = np.where(movable, np.maximum(original - limit, below + CLOSEST), original)
    high = np.where(movable, np.minimum(original + limit, below + 1.0 - CLOSEST), original)
    points = original
    for step in range(_SMOOTHING_STEPS):
        weight = 0.5 if step % 2 == 0 else -0.53
        points = (points + weight * ((points[before] + points[after]) / 2 - points)).clip(low, high)
    return replace(loops, points=points)


def simplify(loops: Loops, limit: float) -> Loops:
    """Leave out points so that no point left out lies farther than `limit` from the contour that remains.

    In each round every second remaining point of a loop goes, where that holds for all points between its neighbours.
    At least four points of a loop stay.
    """
    kept = np.arange(len(loops.points))
    lengths = loops.lengths
    for _ in range(_ROUNDS):
        gone = _dispensable(loops, kept, lengths, limit)
        if not gone.any():
            break
        starts = np.cumsum(lengths) - lengths
        lengths = lengths - np.add.reduceat(gone, starts, dtype=np.int64)
        kept = kept[~gone]
    flags = np.zeros(len(loops.points), np.bool_)
    flags[kept] = True
    return loops.kept(flags)


def _dispensable(loops: Loops, kept: Indices, lengths: Indices, limit: float) -> NDArray[np.bool_]:
    """Tell which of the kept points can go together: no two neighbours, no fixed point, not the first of a loop."""
    starts = np.cumsum(lengths) - lengths
    in_loop = np.arange(len(kept)) - np.repeat(starts, lengths)
    left = np.repeat(lengths, lengths)
    candidates = np.flatnonzero((in_loop % 2 == 1) & (left >= 8) & ~loops.fixed[kept])
    gone = np.zeros(len(kept), np.bool_)
    if not candidates.size:
        return gone
    before, after = neighbours(starts, lengths)
    first, last = kept[before[candidates]], kept[after[candidates]]
    # the last point of a loop is followed by its first one: its stretch ends where the loop ends
    stops = np.where(after[candidates] > candidates, last, np.repeat(np.cumsum(loops.lengths), lengths)[candidates])
    counts = stops - first - 1
    which = np.repeat(np.arange(len(candidates)), counts)
    between = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts) + first[which] + 1
    far = _distance(loops.points[between], loops.points[first][which], loops.points[last][which])
    gone[candidates] = np.maximum.reduceat(far, np.cumsum(counts) - counts) <= limit
    return gone


def _distance(points: Points, starts: Points, ends: Points) -> NDArray[np.float64]:
    """How far points lie from segments, each from its own."""
    along, to_point = ends - starts, points - starts
    length = np.maximum(np.einsum("ij,ij->i", along, along), 1e-12)
    share = (np.einsum("ij,ij->i", along, to_point) / length).clip(0.0, 1.0)
    return np.asarray(np.hypot(*(to_point - share[:, np.newaxis] * along).T))
