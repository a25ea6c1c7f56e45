"""Smoothing and simplifying closed contours, by no more than a stated distance, so that no voxel changes sides.

Each point of a traced contour lies on the line between two neighbouring voxel centres, one inside and one outside.
Smoothing moves it along that line alone. Simplifying leaves it out where what remains crosses that line between the
same two centres. So a contour passes between the same voxels as before, and never comes to cross another. The ends of
keyhole channels stay, so that a channel is passed twice by the same way.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from appliance.dicom.contour_tracing import CLOSEST, Indices, Loops, Points, neighbours

STRAIGHT = 0.015
"""In pixels: points closer than this to the line between their neighbours lie on it."""

FARTHEST = 1.0
"""In pixels: no simplifying moves a contour farther than this."""

_CLOSEST_CHORD = CLOSEST / 2
"""How close the line that takes the place of points may come to a voxel's centre, in pixels along the grid: that is
0.015 pixels across the line, more than the rounding of coordinates moves it."""

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
    """Leave out points so that none of them lies farther than `limit` from the contour that remains.

    In each round every second remaining point of a loop goes, where that holds for all points between its neighbours.
    At least four points of a loop stay.

    Args:
        loops: as they were traced or smoothed, with all their points.
        limit: in pixels.
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
    points, chord = loops.points[between], (loops.points[first][which], loops.points[last][which])
    fits = (_distance(points, *chord) <= limit) & _passes_between_the_same_voxels(points, *chord)
    gone[candidates] = np.logical_and.reduceat(fits, np.cumsum(counts) - counts)
    return gone


def _passes_between_the_same_voxels(points: Points, starts: Points, ends: Points) -> NDArray[np.bool_]:
    """Tell which segments cross the line on which a point lies between the same two voxel centres as the point."""
    upright = points[:, 0] == np.floor(points[:, 0])  # the point lies on a column of centres, between two rows

    def along_and_across(positions: Points) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        columns, rows = positions.T
        return np.where(upright, rows, columns), np.where(upright, columns, rows)

    (point, line), (start, start_across), (end, end_across) = map(along_and_across, (points, starts, ends))
    rise = end_across - start_across
    share = np.divide(line - start_across, rise, out=np.full(len(rise), -1.0), where=rise != 0.0)
    meets = start + share * (end - start)
    from_centre = meets - np.floor(point)
    near = (from_centre >= _CLOSEST_CHORD) & (from_centre <= 1.0 - _CLOSEST_CHORD)
    return np.asarray(near & (share >= 0.0) & (share <= 1.0))


def _distance(points: Points, starts: Points, ends: Points) -> NDArray[np.float64]:
    """How far points lie from segments, each from its own."""
    along, to_point = ends - starts, points - starts
    length = np.maximum(np.einsum("ij,ij->i", along, along), 1e-12)
    share = (np.einsum("ij,ij->i", along, to_point) / length).clip(0.0, 1.0)
    return np.asarray(np.hypot(*(to_point - share[:, np.newaxis] * along).T))
