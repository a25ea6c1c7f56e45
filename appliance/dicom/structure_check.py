"""The last look at a structure set before it may leave: the file is read again and compared with its series.

It is read by another library than the one that wrote it. A file that names an image, a frame of reference or a
patient that was not in the input, or a contour off its slice, stays here.
"""

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import cast

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset

from appliance.dicom.contours import Contour, RoiContours, rasterise
from appliance.dicom.ct_series import CtSeries
from appliance.dicom.ct_slice import COPIED_ELEMENTS
from appliance.dicom.header import PARSE_ERRORS, describe, read_header
from appliance.dicom.roi import RoiMask
from appliance.dicom.roi_elements import CLOSED_PLANAR
from appliance.dicom.structure_set import RT_STRUCTURE_SET_STORAGE
from appliance.dicom.uid import is_valid_uid
from appliance.errors import Reason, ResultRefused, SliceRefused

PLANE_TOLERANCE_MM = 0.01
"""How far a contour may lie off the plane of its image: what rounding of coordinates can explain."""

BORDER_TOLERANCE_PIXELS = 0.05
"""How far a contour may lie outside the outer voxels' edges, for the same reason."""

MAX_NAME = 16


def check_structure_set(content: bytes, series: CtSeries, masks: Sequence[RoiMask] = ()) -> None:
    """Check a structure set file against the series that it was made from.

    Args:
        content: the file.
        series: the images.
        masks: the regions that were drawn, by name; filling the contours must give them back, voxel for voxel.

    Raises:
        ResultRefused: RESULT_INVALID, with the first rule that is broken.
    """
    dataset = _read(content)
    try:
        problem = next(_copy_problems(content, series), None) or next(_problems(dataset, series, masks), None)
    except (*PARSE_ERRORS, SliceRefused) as error:
        raise _invalid(f"an element is absent or malformed ({type(error).__name__})") from error
    if problem is not None:
        raise _invalid(problem)


def read_structure_set(source: Path | bytes) -> dict[str, RoiContours]:
    """Read the contours of a structure set by the names of its regions.

    Slices are counted in the order in which the file lists its images, which is ascending along the normal for files
    of this appliance.

    Raises:
        ResultRefused: RESULT_INVALID, the file is no structure set that can be read.
        OSError: the file cannot be read.
    """
    dataset = _read(source if isinstance(source, bytes) else source.read_bytes())
    try:
        return _contours_by_name(dataset, _listed_images(dataset))
    except PARSE_ERRORS as error:
        raise _invalid(f"an element is absent or malformed ({type(error).__name__})") from error


def _problems(dataset: FileDataset, series: CtSeries, masks: Sequence[RoiMask]) -> Iterator[str]:
    yield from _identity_problems(dataset, series)
    yield from _reference_problems(dataset, series)
    yield from _roi_problems(dataset)
    regions = _contours_by_name(dataset, series.sop_instance_uids)
    for roi in regions.values():
        yield from _contour_problems(roi, series)
    for mask in masks:
        if mask.name not in regions:
            yield f"{mask.name} is missing"
        elif not _is_same(rasterise(regions[mask.name], series.geometry), mask):
            yield f"filling the contours of {mask.name} does not give its voxels back"


def _identity_problems(dataset: FileDataset, series: CtSeries) -> Iterator[str]:
    """Is it an unapproved structure set with names of its own?"""
    own = (dataset.SOPInstanceUID, dataset.SeriesInstanceUID)
    if dataset.SOPClassUID != RT_STRUCTURE_SET_STORAGE or dataset.Modality != "RTSTRUCT":
        yield "it is no RT Structure Set"
    if dataset.file_meta.MediaStorageSOPInstanceUID != dataset.SOPInstanceUID:
        yield "its envelope names another instance"
    if not all(is_valid_uid(uid) for uid in own) or series.series_instance_uid in own or own[0] == own[1]:
        yield "its own UIDs are not valid, or not its own"
    if dataset.ApprovalStatus != "UNAPPROVED" or "ReviewerName" in dataset:
        yield "it does not say that it is unapproved"
    if not 0 < len(dataset.StructureSetLabel) <= MAX_NAME:
        yield "its label is empty or longer than 16 characters"


def _copy_problems(content: bytes, series: CtSeries) -> Iterator[str]:
    """Are patient and study those of the images, byte for byte?"""
    written = read_header(content)
    if written.uid("StudyInstanceUID") != series.study_instance_uid:
        yield "its study is not that of the images"
    source = series.slices[0].header
    for keyword in COPIED_ELEMENTS:
        expected = source[keyword].strip(b" \0")
        if keyword == "StudyID" and not expected:
            continue  # the writer puts one in
        if written.raw(keyword) != expected:
            yield f"{describe(keyword)} is not that of the images"


def _reference_problems(dataset: FileDataset, series: CtSeries) -> Iterator[str]:
    """Does it name the frame of reference everywhere, and all images of the series and no others?"""
    frames = [dataset.FrameOfReferenceUID]
    frames += [item.FrameOfReferenceUID for item in dataset.ReferencedFrameOfReferenceSequence]
    frames += [item.ReferencedFrameOfReferenceUID for item in dataset.StructureSetROISequence]
    if set(frames) != {series.frame_of_reference_uid}:
        yield "its frame of reference is not that of the images"
    if _listed_series(dataset).SeriesInstanceUID != series.series_instance_uid:
        yield "it refers to another series"
    if _listed_images(dataset) != series.sop_instance_uids:
        yield "the images that it lists are not those of the series"


def _roi_problems(dataset: FileDataset) -> Iterator[str]:
    """Do the three sequences speak of the same regions, each once?"""
    numbers = [int(item.ROINumber) for item in dataset.StructureSetROISequence]
    names = [str(item.ROIName) for item in dataset.StructureSetROISequence]
    for sequence in (dataset.ROIContourSequence, dataset.RTROIObservationsSequence):
        if [int(item.ReferencedROINumber) for item in sequence] != numbers:
            yield "its three lists of regions do not agree"
    if min(len(set(numbers)), len({name.casefold() for name in names})) < len(names):
        yield "two regions share a name or a number"
    if not all(0 < len(name) <= MAX_NAME for name in names):
        yield "the name of a region is empty or longer than 16 characters"
    if [item.RTROIInterpretedType for item in dataset.RTROIObservationsSequence].count("EXTERNAL") > 1:
        yield "it has more than one external contour"
    if any(item.ROIGenerationAlgorithm != "AUTOMATIC" for item in dataset.StructureSetROISequence):
        yield "a region does not say that it was drawn automatically"


def _contour_problems(roi: RoiContours, series: CtSeries) -> Iterator[str]:
    """Does each contour lie in the plane of its image, and within the image?"""
    for contour in roi.contours:
        plane = series.geometry.plane(contour.slice_index)
        if len(contour.points_mm) < 3 or not np.isfinite(contour.points_mm).all():
            yield f"{roi.name} has a contour of fewer than three points, or one without a finite position"
        if np.abs(plane.distance_mm(contour.points_mm)).max() > PLANE_TOLERANCE_MM:
            yield f"{roi.name} has a contour off the plane of its image"
        pixels = plane.to_pixels(contour.points_mm)
        outer = np.array([series.geometry.columns, series.geometry.rows]) - 0.5 + BORDER_TOLERANCE_PIXELS
        if (pixels < -0.5 - BORDER_TOLERANCE_PIXELS).any() or (pixels > outer).any():
            yield f"{roi.name} has a contour that leaves its image"


def _contours_by_name(dataset: FileDataset, images: Sequence[str]) -> dict[str, RoiContours]:
    slice_indices = {uid: index for index, uid in enumerate(images)}
    names = {int(item.ROINumber): str(item.ROIName) for item in dataset.StructureSetROISequence}
    regions = {}
    for item in dataset.ROIContourSequence:
        name = names[int(item.ReferencedROINumber)]
        contours = [_contour(one, name, slice_indices) for one in item.get("ContourSequence", ())]
        regions[name] = RoiContours(name, tuple(contours))
    return regions


def _contour(item: Dataset, name: str, slice_indices: dict[str, int]) -> Contour:
    images = [reference.ReferencedSOPInstanceUID for reference in item.ContourImageSequence]
    if len(images) != 1 or images[0] not in slice_indices:
        raise _invalid(f"{name} has a contour that does not name one image of the input")
    # read from the bytes: the library's own number type is slow, and there are a million numbers
    written = cast("bytes", item.get_item("ContourData").value)
    coordinates_mm = np.array([float(number) for number in written.split(b"\\")])
    if item.ContourGeometricType != CLOSED_PLANAR or len(coordinates_mm) != 3 * int(item.NumberOfContourPoints):
        raise _invalid(f"{name} has a contour that is not closed and planar, or not as long as it says")
    return Contour(slice_indices[images[0]], coordinates_mm.reshape(-1, 3))


def _listed_series(dataset: FileDataset) -> Dataset:
    (frame,) = dataset.ReferencedFrameOfReferenceSequence
    (study,) = frame.RTReferencedStudySequence
    (series,) = study.RTReferencedSeriesSequence
    return cast("Dataset", series)


def _listed_images(dataset: FileDataset) -> tuple[str, ...]:
    return tuple(str(item.ReferencedSOPInstanceUID) for item in _listed_series(dataset).ContourImageSequence)


def _is_same(filled: RoiMask, mask: RoiMask) -> bool:
    """Compare two masks, whatever empty space their boxes hold."""
    wanted = RoiMask.from_volume(mask.name, mask.voxels)
    if wanted.is_empty or filled.is_empty:
        return wanted.is_empty and filled.is_empty
    return filled.box == wanted.moved([side.start for side in mask.box]).box and np.array_equal(
        filled.voxels, wanted.voxels
    )


def _read(content: bytes) -> FileDataset:
    try:
        return dcmread(BytesIO(content))
    except PARSE_ERRORS as error:
        raise _invalid(f"it cannot be read as DICOM ({type(error).__name__})") from error


def _invalid(why: str) -> ResultRefused:
    return ResultRefused(
        Reason.RESULT_INVALID, f"the structure set failed its own check and was not sent: {why}; report it as a defect"
    )
