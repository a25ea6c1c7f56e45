"""Contours become voxels: those whose centres lie inside an odd number of contours of their slice.

The even-odd rule is right for every way in which holes are written (PS3.3 §C.8.8.6.3): a keyhole, whose channel is
passed twice; contours within contours; and contours marked as to be combined by exclusive or.
"""

import numpy as np
from numpy.typing import NDArray

from appliance.dicom.contours import RoiContours
from appliance.dicom.geometry import Points, SeriesGeometry
from appliance.dicom.roi import RoiMask

ROUNDED_PIXELS = 4
"""Decimals of a pixel that count: a contour through voxel centres takes the same side everywhere, whatever the noise.

Programs that draw through centres are off by up to a hundred-thousandth of a pixel; contours of our own stay three
hundredths away from every centre. A voxel whose centre lies on a contour belongs to what lies to its right or below it
in the image.
"""


def rasterise(roi: RoiContours, geometry: SeriesGeometry) -> RoiMask:
    """Return the voxels of a region; what lies outside the grid is left out."""
    lengths = np.array([len(one.points_mm) for one in roi.contours], np.intp)
    slices = np.array([one.slice_index for one in roi.contours], np.intp)
    points_mm = np.concatenate([np.zeros((0, 3)), *(one.points_mm for one in roi.contours)])
    return fill(roi.name, points_mm, lengths, slices, geometry)


def fill(
    name: str,
    points_mm: Points,
    lengths: NDArray[np.intp],
    slice_indices: NDArray[np.intp],
    geometry: SeriesGeometry,
) -> RoiMask:
    """Return the voxels of a region; what lies outside the grid is left out.

    Args:
        name: the region's name.
        points_mm: the points of its contours, one contour after the other, shape (N, 3).
        lengths: number of points of each contour.
        slice_indices: slice of each contour.
        geometry: the grid.
    """
    corners = np.round(_to_pixels(points_mm, np.repeat(slice_indices, lengths), geometry), ROUNDED_PIXELS)
    after = np.arange(1, len(corners) + 1)
    after[np.cumsum(lengths)[lengths > 0] - 1] = (np.cumsum(lengths) - lengths)[lengths > 0]
    cuts = _column_cuts(corners, corners[after], np.repeat(slice_indices, lengths), geometry)
    if not cuts.size:
        return RoiMask.from_volume(name, np.zeros((0, 0, 0), dtype=np.bool_))
    corner = cuts.min(axis=1)
    size = cuts.max(axis=1) - corner + 1
    # every cut turns outside into inside, or back, for all voxels of its column from there on
    turns = np.zeros(size, dtype=np.uint8)
    flat = np.ravel_multi_index(tuple(cuts - corner[:, np.newaxis]), tuple(size))
    np.bitwise_xor.at(turns.reshape(-1), flat, np.uint8(1))
    for row in range(1, size[1]):
        turns[:, row] ^= turns[:, row - 1]
    within_grid = turns.view(np.bool_)[:, : geometry.rows - corner[1]]
    return RoiMask.from_volume(name, within_grid).moved(corner.tolist())


def _to_pixels(points_mm: Points, slices: NDArray[np.intp], geometry: SeriesGeometry) -> NDArray[np.float64]:
    """Turn positions into (column, row) indices of shape (N, 2), each in the plane of its own slice."""
    row_spacing_mm, column_spacing_mm = geometry.pixel_spacing_mm
    axes = np.array([geometry.row_direction, geometry.column_direction]).T / (column_spacing_mm, row_spacing_mm)
    return np.asarray(points_mm @ axes - (geometry.positions_mm @ axes)[slices])


def _column_cuts(
    starts: NDArray[np.float64], ends: NDArray[np.float64], slices: NDArray[np.intp], geometry: SeriesGeometry
) -> NDArray[np.intp]:
    """Cut all edges with the centre lines of the columns of voxels.

    Returns the slice, the first row whose centre is not above the cut, and the column, shape (3, N). An edge holds its
    left end and not its right one, so that a corner counts once. The cut is computed from the left end whichever way
    the edge runs, so that the two passes of a keyhole's channel cut exactly the same voxels.
    """
    forwards = (starts[:, 0] <= ends[:, 0])[:, np.newaxis]
    left, right = np.where(forwards, starts, ends), np.where(forwards, ends, starts)
    first_columns = np.ceil(left[:, 0]).clip(0, geometry.columns).astype(np.intp)
    counts = np.ceil(right[:, 0]).clip(0, geometry.columns).astype(np.intp) - first_columns
    edges = np.repeat(np.arange(len(starts)), counts)
    before = np.repeat(np.cumsum(counts) - counts, counts)
    columns = np.arange(len(edges)) - before + first_columns[edges]
    (column, row), (next_column, next_row) = left[edges].T, right[edges].T
    crossings = row + (columns - column) * (next_row - row) / (next_column - column)
    return np.stack([slices[edges], np.ceil(crossings).clip(0, geometry.rows).astype(np.intp), columns])
