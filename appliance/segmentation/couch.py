"""The couch: what lies at the same place beside the patient in slice after slice, and is wide and thin."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from appliance.dicom.ct_volume import CtVolume
from appliance.dicom.geometry import SeriesGeometry

SHELL_HU = -750
"""The shells of couches are denser than this even where they are thinner than a voxel; their foam is not."""

PERSISTENT = 0.5
"""The couch is dense in at least this share of the slices in which the patient is elsewhere."""

SEEN_IN = 0.1
"""Nothing is told of a place that the patient leaves free in a smaller share of the slices."""

WIDE_MM = 60.0
"""Narrower things beside the patient are tubes and cables."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class CouchSection:
    """The cross-section of a couch, which is the same in all slices of a scan.

    Attributes:
        shell: what is dense of it, (y, x) on a canvas that holds every slice at its place.
        section: the couch, filled, on the same canvas.
        corners: (row, column) of each slice's first pixel on the canvas.
        present: in which slices it is there.
    """

    shell: Mask
    section: Mask
    corners: NDArray[np.intp]
    present: Mask

    def shell_in(self, index: int, shape: tuple[int, ...]) -> Mask:
        """What is dense of the couch in one slice of `shape` (y, x)."""
        return self._in_slice(self.shell, index, shape)

    def section_in(self, index: int, shape: tuple[int, ...]) -> Mask:
        """The couch in one slice of `shape` (y, x)."""
        return self._in_slice(self.section, index, shape)

    def _in_slice(self, canvas: Mask, index: int, shape: tuple[int, ...]) -> Mask:
        if not self.present[index]:
            return np.zeros(shape, np.bool_)
        row, column = self.corners[index]
        return canvas[row : row + shape[0], column : column + shape[1]]


def find_couch(volume: CtVolume, patient: Callable[[int], Mask]) -> CouchSection | None:
    """Find the couch beside the patient; None where there is none.

    Args:
        volume: the CT.
        patient: for a slice where everything thick is, and a little around, (y, x).
    """
    geometry = volume.geometry
    corners = _corners(geometry)
    rows, columns = corners.max(axis=0) + np.array([geometry.rows, geometry.columns])
    taken, free, dense = np.zeros((3, rows, columns), np.int32)
    for index, hu in enumerate(volume.hu):
        row, column = corners[index]
        here = np.s_[row : row + geometry.rows, column : column + geometry.columns]
        body = patient(index)
        taken[here] += body
        free[here] += ~body
        dense[here] += ~body & (hu > SHELL_HU)
    persistent = (dense >= PERSISTENT * free) & (free >= max(2, SEEN_IN * len(volume.hu)))
    shell = _wide_parts(persistent, geometry)
    if not shell.any() or not taken.any():
        return None
    shell, axis, from_patient = _below(shell, taken)
    upright = shell if axis == 0 else shell.T
    section = _filled(upright if from_patient > 0 else upright[::-1])
    section = section if from_patient > 0 else section[::-1]
    section = section if axis == 0 else section.T
    return CouchSection(shell, section, corners, _presence(volume, shell, patient, corners))


def _corners(geometry: SeriesGeometry) -> NDArray[np.intp]:
    """Where each slice lies on a common canvas, in whole pixels; the same for all but in a tilted stack."""
    shifts = np.rint(geometry.shear / np.asarray(geometry.pixel_spacing_mm)).astype(np.intp)
    return np.asarray(shifts - shifts.min(axis=0))


def _wide_parts(persistent: Mask, geometry: SeriesGeometry) -> Mask:
    joined = ndimage.binary_dilation(persistent, np.ones((3, 3), np.bool_))
    parts, _ = ndimage.label(joined, np.ones((3, 3), np.bool_))
    wide = [
        number
        for number, box in enumerate(ndimage.find_objects(parts), 1)
        if max(
            (side.stop - side.start - 2) * spacing for side, spacing in zip(box, geometry.pixel_spacing_mm, strict=True)
        )
        >= WIDE_MM
    ]
    return np.asarray(np.isin(parts, wide) & persistent)


def _below(shell: Mask, taken: NDArray[np.int32]) -> tuple[Mask, int, int]:
    """Keep what lies on one side of the patient's middle: on the side of most.

    Returns:
        the shells there; the axis along which they lie from the patient, 0 for rows and 1 for columns; and 1 where they
        lie towards higher indices, else -1.
    """
    sides = []
    for axis in (0, 1):
        indices = np.arange(shell.shape[axis])
        middle = np.average(indices, weights=taken.sum(axis=1 - axis))
        for direction in (1, -1):
            beyond = (indices - middle) * direction > 0
            kept = shell & (beyond[:, np.newaxis] if axis == 0 else beyond)
            sides.append((kept, axis, direction))
    return max(sides, key=lambda side: np.count_nonzero(side[0]))


def _filled(lines: Mask) -> Mask:
    """Fill a couch that lies below the patient, towards higher rows, from its upper shell to its lower one.

    Where the scan shows only one of them, the couch is as thick as elsewhere; where none, as in between.
    """
    known = np.flatnonzero(lines.any(axis=0))
    first = lines.argmax(axis=0)[known]
    last = len(lines) - 1 - lines[::-1].argmax(axis=0)[known]
    across = np.arange(known[0], known[-1] + 1)
    upper, lower = (np.interp(across, known, rows) for rows in _both_shells(first, last))
    depth = np.arange(len(lines))[:, np.newaxis]
    filled = np.zeros_like(lines)
    filled[:, across] = (depth >= np.rint(upper)) & (depth <= np.rint(lower))
    return filled


def _both_shells(first: NDArray[np.intp], last: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Say which rows are upper and lower shell, given the first and last dense row of each column.

    Where they lie close together they are one shell: the one that is nearer to that shell in the next column.
    """
    upper, lower = first.copy(), last.copy()
    thickness = last - first
    whole = 2 * thickness >= thickness.max()
    usual = int(np.median(thickness[whole]))
    start = int(np.argmax(whole))
    for column, before in [(c, c - 1) for c in range(start + 1, len(first))] + [
        (c, c + 1) for c in range(start - 1, -1, -1)
    ]:
        if whole[column]:
            continue
        if abs(first[column] - upper[before]) <= abs(last[column] - lower[before]):
            lower[column] = first[column] + usual
        else:
            upper[column] = last[column] - usual
    return upper, lower


def _presence(volume: CtVolume, shell: Mask, patient: Callable[[int], Mask], corners: NDArray[np.intp]) -> Mask:
    """In which slices the shells are seen, as far as the patient leaves them free."""
    present = np.zeros(len(volume.hu), np.bool_)
    for index, hu in enumerate(volume.hu):
        row, column = corners[index]
        expected = shell[row : row + hu.shape[0], column : column + hu.shape[1]] & ~patient(index)
        present[index] = np.count_nonzero(expected & (hu > SHELL_HU)) >= PERSISTENT / 2 * np.count_nonzero(expected)
    return present
