"""The points of contours, from the text of their Contour Data (PS3.3 §C.8.8.6, PS3.5 §6.2 for decimal strings)."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appliance.dicom.ct_slice import MAX_COORDINATE_MM
from appliance.dicom.geometry import Points
from appliance.dicom.structure_file import WrittenContour

_OF_DECIMALS = b"0123456789+-.eE \\"


@dataclass(frozen=True, slots=True, eq=False)
class ContourPoints:
    """The points of several contours, one after the other.

    Attributes:
        points_mm: patient positions, shape (N, 3).
        lengths: number of points of each contour; 0 for one that cannot be read.
        problems: what is wrong with a contour, by its index, for the second half of a sentence.
    """

    points_mm: Points
    lengths: NDArray[np.intp]
    problems: dict[int, str]

    @property
    def starts(self) -> NDArray[np.intp]:
        """Index of each contour's first point."""
        return np.cumsum(self.lengths) - self.lengths

    @property
    def owners(self) -> NDArray[np.intp]:
        """Index of each point's contour, shape (N,)."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @property
    def following(self) -> NDArray[np.intp]:
        """Index of the point that comes after each point in its contour, the first one after the last, shape (N,)."""
        after = np.arange(1, len(self.points_mm) + 1)
        filled = self.lengths > 0
        after[(self.starts + self.lengths - 1)[filled]] = self.starts[filled]
        return after

    def only(self, chosen: NDArray[np.bool_]) -> "ContourPoints":
        """Return some of the contours: those where `chosen`, shape (contours,), is True."""
        return ContourPoints(self.points_mm[chosen[self.owners]], self.lengths[chosen], {})


def read_points(contours: Sequence[WrittenContour]) -> ContourPoints:
    """Read the points of contours; a contour that cannot be read is noted and has none."""
    counts = [contour.coordinates.count(b"\\") + 1 if contour.coordinates else 0 for contour in contours]
    problems = {
        index: problem
        for index, (contour, count) in enumerate(zip(contours, counts, strict=True))
        if (problem := _count_problem(contour, count)) is not None
    }
    if not problems:
        values = _numbers(b"\\".join(contour.coordinates for contour in contours if contour.coordinates))
        if values is not None and len(values) == sum(counts):
            return ContourPoints(values.reshape(-1, 3), np.array(counts, np.intp) // 3, problems)
    return _read_one_by_one(contours, problems)


def too_long_decimals(contours: Sequence[WrittenContour], limit: int = 16) -> int:
    """Count the coordinates that are longer than a decimal string may be (PS3.5 §6.2)."""
    text = b"\\".join(contour.coordinates for contour in contours)
    between = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\\"))
    lengths = np.diff(between, prepend=-1, append=len(text)) - 1
    return int(np.count_nonzero(lengths > limit))


def _count_problem(contour: WrittenContour, count: int) -> str | None:
    declared = contour.declared_points
    if count % 3:
        return f"holds {count} coordinates, which is no multiple of three"
    if declared is not None and 3 * declared != count:
        return f"says that it has {declared} points and holds {count // 3}"
    if not count and declared != 0:
        return "holds no points"
    return None


def _numbers(text: bytes) -> NDArray[np.float64] | None:
    """Read decimal strings with backslashes between them; None where one is none, or beyond any patient."""
    if not text:
        return np.zeros(0)
    # neither "nan" nor "1_0" is a decimal string, whatever a parser of numbers may think
    if text.translate(None, _OF_DECIMALS):
        return None
    with warnings.catch_warnings(action="ignore"):  # older releases of numpy warn where newer ones raise
        try:
            values = np.fromstring(text, sep="\\")
        except ValueError:
            return None
    return values if (np.abs(values) <= MAX_COORDINATE_MM).all() else None


def _read_one_by_one(contours: Sequence[WrittenContour], problems: dict[int, str]) -> ContourPoints:
    """Find out which contours cannot be read."""
    read = []
    for index, contour in enumerate(contours):
        values = None if index in problems else _numbers(contour.coordinates)
        if values is None or 3 * (len(values) // 3) != contour.coordinates.count(b"\\") + bool(contour.coordinates):
            problems.setdefault(index, "holds a coordinate that is no decimal number within 100 m")
            values = np.zeros(0)
        read.append(values)
    lengths = np.array([len(values) // 3 for values in read], np.intp)
    return ContourPoints(np.concatenate([np.zeros(0), *read]).reshape(-1, 3), lengths, problems)
