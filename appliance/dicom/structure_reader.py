"""The one reader of structure sets: our own and anybody else's, as contours or as voxels of the series at hand.

It reads what is certain and refuses the rest. A structure set must be for these very images, and each contour must
lie in the plane of one of them, which has to be the image that it names. What bounds no volume (points, open contours,
contours of one or two points) is passed over; `structure_check.py` reports it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from appliance.dicom.contour_points import ContourPoints, read_points
from appliance.dicom.contours import Contour, RoiContours
from appliance.dicom.ct_series import CtSeries
from appliance.dicom.geometry import SeriesGeometry
from appliance.dicom.rasterising import fill
from appliance.dicom.roi import RoiMask
from appliance.dicom.structure_file import (
    OTHER_TYPES,
    VOLUME_TYPES,
    WrittenContour,
    WrittenRoi,
    WrittenStructureSet,
    read_structure_file,
)
from appliance.dicom.structure_images import misfit
from appliance.errors import Reason, StructureSetRefused

PLANE_TOLERANCE_MM = 0.5
"""Farthest that a contour may lie from the plane of its image: programs that take z from a table of their own round."""

PLANE_TOLERANCE_FRACTION = 0.2
"""And as a part of the gap to the next slice, so that no contour could as well belong to that one."""

Trust: TypeAlias = Literal["agreement", "coordinates"]


@dataclass(frozen=True, slots=True, eq=False)
class PlacedRegion:
    """One region of a structure set, with the slices that its contours lie on.

    Attributes:
        name: the region's name, unique within its structure set.
        contours: its closed contours of three points and more.
        slice_indices: the slice of each contour, shape (contours,).
    """

    name: str
    contours: ContourPoints
    slice_indices: NDArray[np.intp]

    def mask(self, geometry: SeriesGeometry) -> RoiMask:
        """Return its voxels, by the even-odd rule."""
        return fill(self.name, self.contours.points_mm, self.contours.lengths, self.slice_indices, geometry)

    def outlines(self) -> RoiContours:
        """Return its contours in ascending order of slices."""
        pieces = np.split(self.contours.points_mm, np.cumsum(self.contours.lengths)[:-1])
        order = np.argsort(self.slice_indices, kind="stable").tolist()
        return RoiContours(self.name, tuple(Contour(int(self.slice_indices[one]), pieces[one]) for one in order))


@dataclass(frozen=True, slots=True)
class JoinedRegion:
    """What is written of one ROI Number: its name, unique within the structure set, and all its contours."""

    name: str
    contours: tuple[WrittenContour, ...]


def read_regions(source: bytes | Path, series: CtSeries, *, trust: Trust = "agreement") -> dict[str, RoiMask]:
    """Read a structure set as voxels of the series that it was drawn on.

    Args:
        source: the file, or its path.
        series: the images.
        trust: a contour must lie on the image that it names; with "coordinates" only its place counts, for files that
            are known to name wrong images.

    Returns:
        the regions by name, in the order of the Structure Set ROI Sequence; a region without contours is empty. A name
        that occurs again gets a number behind it (`Bladder (2)`), a region without one is called `ROI 7` by its number.

    Raises:
        StructureSetRefused: STRUCTURE_SET_UNREADABLE, STRUCTURE_SET_MISMATCH or STRUCTURE_SET_UNCLEAR; nothing else,
            whatever the bytes hold.
        OSError: the file cannot be read.
    """
    return {region.name: region.mask(series.geometry) for region in _placed(source, series, trust)}


def read_contours(source: bytes | Path, series: CtSeries, *, trust: Trust = "agreement") -> dict[str, RoiContours]:
    """Read a structure set as contours, each with the slice that it lies on; otherwise as `read_regions`."""
    return {region.name: region.outlines() for region in _placed(source, series, trust)}


def placed_regions(
    written: WrittenStructureSet, series: CtSeries, *, trust: Trust = "agreement"
) -> Iterator[PlacedRegion]:
    """Yield the regions of a structure set that was taken apart already, one at a time to spare memory.

    Raises:
        StructureSetRefused: STRUCTURE_SET_MISMATCH or STRUCTURE_SET_UNCLEAR.
    """
    problem = misfit(written, series)
    if problem is not None:
        sentence = f"the structure set is not for these images: {problem}; give the CT series that it was drawn on"
        raise StructureSetRefused(Reason.STRUCTURE_SET_MISMATCH, sentence)
    for region in joined_regions(written):
        points = _volume_points(region)
        slices, far_mm = nearest_slices(points, series.geometry)
        _check_places(region, points, (slices, far_mm), series, trust)
        bounding = points.lengths >= 3
        yield PlacedRegion(region.name, points.only(bounding), slices[bounding])


def joined_regions(written: WrittenStructureSet) -> list[JoinedRegion]:
    """Join names and contours by ROI Number, in the order of the Structure Set ROI Sequence.

    Raises:
        StructureSetRefused: STRUCTURE_SET_UNCLEAR, a number is missing, occurs twice or leads nowhere.
    """
    numbers = [roi.number for roi in written.rois]
    contoured = [one.number for one in written.roi_contours]
    if not numbers or not contoured:
        raise _unclear("it lists no structures, or contours of none")
    for what, listed in (("ROI Number", numbers), ("ROI Number of contours", contoured)):
        if None in listed:
            raise _unclear(f"the {what} of a structure is missing or no whole number")
        if len(set(listed)) < len(listed):
            raise _unclear(f"an {what} occurs twice")
    if set(contoured) - set(numbers):
        raise _unclear("there are contours of an ROI Number that no structure has")
    contours = {one.number: one.contours for one in written.roi_contours}
    names = unique_names(written.rois)
    return [JoinedRegion(name, contours.get(number, ())) for name, number in zip(names, numbers, strict=True)]


def unique_names(rois: tuple[WrittenRoi, ...]) -> list[str]:
    """Name each region as it is written, without spaces around; one that occurs again gets a number behind it."""
    names: dict[str, None] = {}
    for roi in rois:
        plain = roi.name.strip() or f"ROI {roi.number}"
        name, count = plain, 1
        while name in names:
            count += 1
            name = f"{plain} ({count})"
        names[name] = None
    return list(names)


def doubled_contours(contours: Iterable[WrittenContour]) -> list[WrittenContour]:
    """Return the contours whose coordinates, letter for letter, have come before in the same region."""
    first: dict[bytes, WrittenContour] = {}
    return [one for one in contours if one.coordinates and first.setdefault(one.coordinates, one) is not one]


def nearest_slices(points: ContourPoints, geometry: SeriesGeometry) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Find the slice whose plane lies nearest to each contour, along the normal, by each slice's own position.

    Returns the slice of each contour, and how far its farthest point lies from that plane in mm; a contour without
    points is given to slice 0.
    """
    normal = np.asarray(geometry.normal)
    heights_mm, planes_mm = points.points_mm @ normal, geometry.positions_mm @ normal
    filled = points.lengths > 0
    slices, far_mm = np.zeros(len(filled), np.intp), np.zeros(len(filled))
    if filled.any():
        starts = points.starts[filled]
        low_mm, high_mm = np.minimum.reduceat(heights_mm, starts), np.maximum.reduceat(heights_mm, starts)
        between_mm = (planes_mm[1:] + planes_mm[:-1]) / 2
        slices[filled] = np.searchsorted(between_mm, (low_mm + high_mm) / 2)
        far_mm[filled] = np.maximum(high_mm - planes_mm[slices[filled]], planes_mm[slices[filled]] - low_mm)
    return slices, far_mm


def plane_tolerances_mm(geometry: SeriesGeometry) -> NDArray[np.float64]:
    """How far a contour may lie from the plane of each slice, shape (slices,)."""
    gaps_mm = np.abs(np.diff(geometry.positions_mm @ np.asarray(geometry.normal)))
    nearest_mm = np.minimum(np.append(gaps_mm[:1], gaps_mm), np.append(gaps_mm, gaps_mm[-1:]))
    return np.asarray(np.minimum(PLANE_TOLERANCE_MM, PLANE_TOLERANCE_FRACTION * nearest_mm))


def _placed(source: bytes | Path, series: CtSeries, trust: Trust) -> Iterator[PlacedRegion]:
    content = source if isinstance(source, bytes) else source.read_bytes()
    return placed_regions(read_structure_file(content), series, trust=trust)


def _volume_points(region: JoinedRegion) -> ContourPoints:
    """Read the points of the closed contours; of all others, which bound no volume, none."""
    for contour in region.contours:
        if contour.geometric_type not in (*VOLUME_TYPES, *OTHER_TYPES):
            raise _unclear(f"{region.name} has a contour of no known type")
    closed = [contour for contour in region.contours if contour.is_closed]
    if doubled_contours(closed):
        raise _unclear(f"{region.name} has one contour twice, which cancels out or not as the reader pleases")
    points = read_points(closed)
    if points.problems:
        raise _unclear(f"a contour of {region.name} {next(iter(points.problems.values()))}")
    return points


def _check_places(
    region: JoinedRegion,
    points: ContourPoints,
    places: tuple[NDArray[np.intp], NDArray[np.float64]],
    series: CtSeries,
    trust: Trust,
) -> None:
    """Refuse contours off every plane, and contours on another image than they name."""
    slices, far_mm = places
    off = np.flatnonzero((far_mm > plane_tolerances_mm(series.geometry)[slices]) & (points.lengths >= 3))
    if off.size:
        z_mm = points.points_mm[points.starts[off[0]], 2]
        raise _unclear(f"{region.name} has a contour {far_mm[off[0]]:.2f} mm off the nearest image (z = {z_mm:.1f} mm)")
    if trust == "coordinates":
        return
    uids = series.sop_instance_uids
    for index, contour in enumerate(contour for contour in region.contours if contour.is_closed):
        if contour.image_uids and uids[slices[index]] not in contour.image_uids and points.lengths[index] >= 3:
            z_mm = points.points_mm[points.starts[index], 2]
            raise _unclear(f"{region.name} has a contour at z = {z_mm:.1f} mm that names an image elsewhere")


def _unclear(why: str) -> StructureSetRefused:
    return StructureSetRefused(
        Reason.STRUCTURE_SET_UNCLEAR,
        f"the structure set does not say with certainty which voxels it means: {why}; correct it where it was drawn",
    )
