"""Contours that run across themselves.

Edges are sorted into the cells of a grid that they pass through, and only edges of one contour that share a cell are
compared, so the work grows with the number of points. What merely touches is no crossing: the channel of a keyhole is
passed twice along the same line, and a corner may lie on another edge.
"""

import numpy as np
from numpy.typing import NDArray

from appliance.dicom.contour_points import ContourPoints

TOUCHING_MM = 0.02
"""How far an edge must reach to both sides of another to cross it: more than rounding of coordinates explains."""

CELL_EDGES = 2.0
"""Width of a cell in usual edge lengths."""

MOST_IN_A_CELL = 64
"""Edges of a cell that are compared with each other: neighbours in a file of any sense are far fewer."""

_MOST_CELLS = 4  #: that an edge passes through, on average


def crossings(points: ContourPoints) -> tuple[NDArray[np.intp], bool]:
    """Find the contours that cross themselves.

    Returns the indices of those contours, ascending, and whether every pair of edges was looked at that could cross.
    """
    contours = points.owners
    flat_mm = _flattened(points)
    starts_mm, ends_mm = flat_mm, flat_mm[points.following]
    lengths_mm = np.hypot(*(ends_mm - starts_mm).T)
    real = np.flatnonzero(lengths_mm > 0)
    if real.size < 4:
        return np.zeros(0, np.intp), True
    # never so narrow that long edges would fill the memory with their cells
    width_mm = max(CELL_EDGES * float(np.median(lengths_mm[real])), float(np.mean(lengths_mm[real])) / _MOST_CELLS)
    edges, keys = _cells(starts_mm[real], ends_mm[real], contours[real], width_mm)
    order = np.argsort(keys)
    edges, keys = real[edges[order]], keys[order]
    found: set[int] = set()
    for step in range(1, MOST_IN_A_CELL):
        together = keys[step:] == keys[:-step]
        if not together.any():
            return np.array(sorted(found), np.intp), True
        first, second = edges[:-step][together], edges[step:][together]
        crossing = _cross((starts_mm[first], ends_mm[first]), (starts_mm[second], ends_mm[second]))
        found.update(contours[first[crossing]].tolist())
    return np.array(sorted(found), np.intp), False


def _flattened(points: ContourPoints) -> NDArray[np.float64]:
    """Drop the axis that varies least over the region: planes are far from standing on their edge."""
    if not len(points.points_mm):
        return points.points_mm[:, :2]
    starts = points.starts[points.lengths > 0]
    low, high = (one.reduceat(points.points_mm, starts, axis=0) for one in (np.minimum, np.maximum))
    kept = np.sort(np.argsort((high - low).sum(axis=0))[1:])
    return points.points_mm[:, kept]


def _cells(
    starts_mm: NDArray[np.float64], ends_mm: NDArray[np.float64], contours: NDArray[np.intp], width_mm: float
) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Sort edges into cells: pairs of edge and key, one for each cell that an edge passes through or next to.

    An edge is cut into pieces that are no longer than a cell is wide; each piece lies in the cells of the box around
    it, which are four at most. Each contour has cells of its own. Keys of far cells may coincide, which costs a
    comparison and nothing else.
    """
    across = np.hypot(*(ends_mm - starts_mm).T) / width_mm
    pieces = np.ceil(across).clip(1).astype(np.intp)
    edges = np.repeat(np.arange(len(starts_mm)), pieces)
    nth = np.arange(len(edges)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    steps_mm = (ends_mm - starts_mm)[edges] / pieces[edges, np.newaxis]
    begins_mm = starts_mm[edges] + nth[:, np.newaxis] * steps_mm
    low = np.floor((np.minimum(begins_mm, begins_mm + steps_mm) - TOUCHING_MM) / width_mm).astype(np.int64)
    high = np.floor((np.maximum(begins_mm, begins_mm + steps_mm) + TOUCHING_MM) / width_mm).astype(np.int64)
    columns, rows = np.ptp(high, axis=0) + 3
    origin = (contours[edges] * columns + low[:, 0]) * rows + low[:, 1]
    right, down = (high > low).T
    keys = [origin, origin[right] + rows, origin[down] + 1, origin[right & down] + rows + 1]
    owners = [edges, edges[right], edges[down], edges[right & down]]
    return np.concatenate(owners), np.concatenate(keys)


def _cross(
    first: tuple[NDArray[np.float64], NDArray[np.float64]], second: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> NDArray[np.bool_]:
    """Tell which pairs of edges run across each other, each reaching to both sides of the other."""
    return _reaches_across(*first, *second) & _reaches_across(*second, *first)


def _reaches_across(
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    other_start: NDArray[np.float64],
    other_end: NDArray[np.float64],
) -> NDArray[np.bool_]:
    along = other_end - other_start
    along = along / np.hypot(*along.T)[:, np.newaxis]
    one, two = (
        along[:, 0] * (point - other_start)[:, 1] - along[:, 1] * (point - other_start)[:, 0] for point in (start, end)
    )
    return np.asarray((np.minimum(one, two) < -TOUCHING_MM) & (np.maximum(one, two) > TOUCHING_MM))
