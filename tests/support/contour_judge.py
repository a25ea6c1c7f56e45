"""A second opinion on contours, which shares no code with the appliance's reader and writer.

It reads the coordinates as the file writes them and finds the image of each contour twice: by the UID that it names,
and by where it lies. A voxel belongs to a region if its centre lies inside an odd number of the contours of its image:
the centre line of each row of voxels is cut with all edges, and what lies between the first cut and the second, the
third and the fourth, and so on, is inside. Each image has its own position, orientation and spacing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from tests.support.image_planes import ImagePlane, Points, nearest, read_plane

Mask = NDArray[np.bool_]
MAX_DECIMAL = 16
"""Longest Decimal String, in bytes (PS3.5 §6.2)."""


@dataclass(frozen=True, eq=False)
class WrittenContour:
    """One contour as a file writes it.

    Attributes:
        points_mm: positions, shape (N, 3).
        image_uid: the one image that it names; None if it names none, or several.
        long_decimals: how many of its numbers take more than 16 bytes.
    """

    points_mm: Points
    image_uid: str | None
    long_decimals: int


@dataclass(frozen=True)
class Verdict:
    """What is to be said of one region.

    Attributes:
        dice: overlap with the truth, each contour taken to be on the image nearest to it; 1.0 where both are empty.
        dice_by_uid: the same, each contour taken to be on the image that it names, if it names one.
        volume_error: (volume - true volume) / true volume, by the nearest image.
        off_plane_mm: how far the farthest point lies off the nearest image.
        other_image: contours that name another image than the nearest.
        unnamed: contours that do not name exactly one image, which they need not (PS3.3 §C.8.8.6).
        short_contours: contours of fewer than three points, which enclose nothing.
        lost_slices: slices that hold some of the region in truth and none of it here.
    """

    dice: float
    dice_by_uid: float
    volume_error: float
    off_plane_mm: float
    other_image: int
    unnamed: int
    contours: int
    points: int
    short_contours: int
    long_decimals: int
    lost_slices: int


def read_contours(structure_set: Dataset) -> dict[str, list[WrittenContour]]:
    """Read the contours of all regions by name; a region without contours has an empty list."""
    names = {item.ROINumber: str(item.ROIName) for item in structure_set.StructureSetROISequence}
    regions: dict[str, list[WrittenContour]] = {name: [] for name in names.values()}
    for item in structure_set.get("ROIContourSequence", ()):
        regions[names[item.ReferencedROINumber]] += map(_read_contour, item.get("ContourSequence", None) or ())
    return regions


def judge_region(contours: Sequence[WrittenContour], truth: Mask, planes: Sequence[ImagePlane]) -> Verdict:
    """Compare one region's contours with the truth, of shape (planes, rows, columns)."""
    place = {plane.uid: index for index, plane in enumerate(planes)}
    closed = [one for one in contours if len(one.points_mm) > 2]
    centres_mm = np.array([one.points_mm.mean(axis=0) for one in closed]).reshape(-1, 3)
    lies_on = nearest(planes, centres_mm).tolist()
    named = [
        near if one.image_uid is None else place.get(one.image_uid, -1)
        for near, one in zip(lies_on, closed, strict=True)
    ]
    by_place = _overlap(closed, lies_on, truth, planes)
    by_name = by_place if named == lies_on else _overlap(closed, named, truth, planes)
    return Verdict(
        dice=by_place.dice,
        dice_by_uid=by_name.dice,
        volume_error=(by_place.voxels - by_place.true_voxels) / max(by_place.true_voxels, 1),
        off_plane_mm=max(
            (float(planes[on].off_plane_mm(one.points_mm).max()) for on, one in zip(lies_on, closed, strict=True)),
            default=0.0,
        ),
        other_image=sum(here != there for here, there in zip(lies_on, named, strict=True)),
        unnamed=sum(one.image_uid is None for one in closed),
        contours=len(contours),
        points=sum(len(one.points_mm) for one in contours),
        short_contours=len(contours) - len(closed),
        long_decimals=sum(one.long_decimals for one in contours),
        lost_slices=by_place.lost_slices,
    )


def fill_plane(outlines_mm: Iterable[Points], plane: ImagePlane) -> Mask:
    """Return the voxels (rows, columns) of an image whose centres lie inside an odd number of outlines."""
    columns, rows, next_columns, next_rows = _edges([plane.to_pixels(outline_mm) for outline_mm in outlines_mm])
    # an edge cuts the rows from its upper end to its lower one, which is not its own: a corner counts once
    first = np.ceil(np.minimum(rows, next_rows)).clip(0, plane.rows).astype(np.intp)
    last = np.ceil(np.maximum(rows, next_rows)).clip(0, plane.rows).astype(np.intp)
    edge = np.repeat(np.arange(len(rows)), last - first)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(last - first) - last, last - first)
    slope = (next_columns - columns)[edge] / (next_rows - rows)[edge]
    cut = columns[edge] + (row - rows[edge]) * slope
    order = np.lexsort((cut, row))
    row, column = row[order], np.ceil(cut[order]).clip(0, plane.columns).astype(np.intp)
    # a closed outline cuts every row an even number of times, so pairs never span two rows
    inside = np.zeros((plane.rows, plane.columns + 1), dtype=np.int32)
    np.add.at(inside, (row[::2], column[::2]), 1)
    np.add.at(inside, (row[1::2], column[1::2]), -1)
    return np.asarray(np.cumsum(inside[:, :-1], axis=1) > 0)


def fill_structure_set(structure_set: Dataset, images: Iterable[Path]) -> dict[str, Mask]:
    """Return for each region its voxels by the images that its contours name, shape (images, rows, columns).

    The order is that of `images`.
    """
    planes = [read_plane(path) for path in images]
    place = {plane.uid: index for index, plane in enumerate(planes)}
    return {
        name: np.stack(_fill(contours, [place[str(one.image_uid)] for one in contours], planes))
        for name, contours in read_contours(structure_set).items()
    }


def fill_by_number(structure_set: Dataset, images: Iterable[Path]) -> dict[int, Mask]:
    """Return the voxels of each ROI Number that has an item among the contours, as `fill_structure_set` does.

    Contours of other types than closed ones bound no volume. A contour must hold as many points as it says.
    """
    planes = [read_plane(path) for path in images]
    place = {plane.uid: index for index, plane in enumerate(planes)}
    filled = {}
    for item in structure_set.ROIContourSequence:
        voxels = np.zeros((len(planes), planes[0].rows, planes[0].columns), dtype=np.bool_)
        for contour in item.get("ContourSequence", ()):
            if contour.ContourGeometricType in {"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"}:
                read = _read_contour(contour)
                assert len(read.points_mm) == contour.get("NumberOfContourPoints", len(read.points_mm))
                on = place[str(read.image_uid)]
                voxels[on] ^= fill_plane([read.points_mm], planes[on])
        filled[int(item.ReferencedROINumber)] = voxels
    return filled


def distance_from_plane_mm(points_mm: Points, image: Dataset) -> float:
    """Return how far the farthest point lies off the plane of an image."""
    return float(read_plane(image).off_plane_mm(points_mm).max())


def sample_outlines_mm(contours: Iterable[WrittenContour], every_mm: float) -> Points:
    """Return points evenly spaced along contours, shape (N, 3)."""
    outlines = [one.points_mm for one in contours if len(one.points_mm) > 2]
    if not outlines:
        return np.zeros((0, 3))
    starts = np.concatenate(outlines)
    steps = np.concatenate([np.roll(points, -1, axis=0) for points in outlines]) - starts
    reached_mm = np.cumsum(np.linalg.norm(steps, axis=1))
    stops_mm = np.arange(0.0, reached_mm[-1], every_mm)
    edge = np.searchsorted(reached_mm, stops_mm, side="right")
    lengths_mm = np.diff(reached_mm, prepend=0.0)
    part = 1.0 - (reached_mm[edge] - stops_mm) / lengths_mm[edge]
    return np.asarray(starts[edge] + steps[edge] * part[:, np.newaxis])


@dataclass(frozen=True)
class _Overlap:
    voxels: int
    true_voxels: int
    shared: int
    lost_slices: int

    @property
    def dice(self) -> float:
        return 2 * self.shared / (self.voxels + self.true_voxels) if self.voxels + self.true_voxels else 1.0


def _overlap(
    contours: Sequence[WrittenContour], on: Sequence[int], truth: Mask, planes: Sequence[ImagePlane]
) -> _Overlap:
    counts = []
    for filled, true in zip(_fill(contours, on, planes), truth, strict=True):
        counts.append([np.count_nonzero(filled), np.count_nonzero(true), np.count_nonzero(filled & true)])
    voxels, true_voxels, shared = (int(total) for total in np.sum(counts, axis=0))
    return _Overlap(voxels, true_voxels, shared, sum(true > 0 and filled == 0 for filled, true, _ in counts))


def _fill(contours: Sequence[WrittenContour], on: Sequence[int], planes: Sequence[ImagePlane]) -> list[Mask]:
    outlines: Mapping[int, list[Points]] = {index: [] for index in range(-1, len(planes))}
    for index, one in zip(on, contours, strict=True):
        outlines[index].append(one.points_mm)
    nothing = np.zeros((planes[0].rows, planes[0].columns), dtype=np.bool_)
    return [fill_plane(outlines[index], plane) if outlines[index] else nothing for index, plane in enumerate(planes)]


def _edges(outlines: Sequence[tuple[Points, Points]]) -> tuple[Points, Points, Points, Points]:
    """Return where all edges begin and end: columns, rows, columns, rows."""
    columns, rows = (np.concatenate(parts) for parts in zip(*outlines, strict=True))
    next_columns, next_rows = (
        np.concatenate([np.roll(part, -1) for part in parts]) for parts in zip(*outlines, strict=True)
    )
    return columns, rows, next_columns, next_rows


def _read_contour(item: Dataset) -> WrittenContour:
    # as the file has it: a number that pydicom has once parsed no longer shows how long it was
    written = item.get_item("ContourData").value
    text = written if isinstance(written, bytes) else "\\".join(map(str, written)).encode("ascii")
    numbers = text.strip(b" \0").split(b"\\")
    images = [str(one.ReferencedSOPInstanceUID) for one in item.get("ContourImageSequence", ())]
    return WrittenContour(
        np.array(numbers, dtype=np.float64).reshape(-1, 3),
        images[0] if len(images) == 1 else None,
        sum(len(number) > MAX_DECIMAL for number in numbers),
    )
