"""The last look at a Segmentation before it may leave: the file is read again and compared with its series.

The library highdicom reads it, as viewers built on it do; the bytes were written without it. A file that names an
image, a frame of reference or a patient that was not in the input, or whose frames do not give every voxel back in
its place, stays here.
"""

from collections.abc import Iterator, Sequence
from io import BytesIO

import numpy as np
from highdicom.seg import Segmentation, segread
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from appliance.dicom.ct_series import CtSeries
from appliance.dicom.ct_slice import COPIED_ELEMENTS
from appliance.dicom.header import PARSE_ERRORS, describe, read_header
from appliance.dicom.roi import RoiMask, RoiTemplate
from appliance.dicom.segment_frames import Frame, frames_of
from appliance.dicom.segmentation_object import SEGMENTATION_STORAGE, SegmentedRoi
from appliance.dicom.uid import is_valid_uid
from appliance.errors import Reason, ResultRefused, SliceRefused

PLACE_TOLERANCE_MM = 1e-3
"""How far a frame may lie off its image: what rounding to 16 characters can explain."""

DIRECTION_TOLERANCE = 1e-6


def check_segmentation(content: bytes, series: CtSeries, regions: Sequence[SegmentedRoi]) -> None:
    """Check a Segmentation file against the series and the regions that it was made from.

    Args:
        content: the file.
        series: the images.
        regions: the regions, in the order of the segments.

    Raises:
        ResultRefused: RESULT_INVALID, with the first rule that is broken.
    """
    try:
        problem = next(_problems(content, series, regions), None)
    except (*PARSE_ERRORS, SliceRefused) as error:
        raise _invalid(f"it cannot be read, or an element is absent or malformed ({type(error).__name__})") from error
    if problem is not None:
        raise _invalid(problem)


def _problems(content: bytes, series: CtSeries, regions: Sequence[SegmentedRoi]) -> Iterator[str]:
    yield from _copy_problems(content, series)
    with BytesIO(content) as file:
        written = segread(file, lazy_frame_retrieval=True)
        yield from _identity_problems(written, series)
        yield from _reference_problems(written, series)
        yield from _segment_problems(written, [region.template for region in regions])
        yield from _frame_problems(written, series, [region.mask for region in regions])


def _copy_problems(content: bytes, series: CtSeries) -> Iterator[str]:
    """Are patient and study those of the images, byte for byte?"""
    written, source = read_header(content), series.slices[0].header
    if written.uid("StudyInstanceUID") != series.study_instance_uid:
        yield "its study is not that of the images"
    for keyword in COPIED_ELEMENTS:
        expected = source[keyword].strip(b" \0")
        writer_puts_one_in = keyword == "StudyID" and not expected
        if written.raw(keyword) != expected and not writer_puts_one_in:
            yield f"{describe(keyword)} is not that of the images"


def _identity_problems(written: Segmentation, series: CtSeries) -> Iterator[str]:
    """Is it an automatic draft with names of its own?"""
    own = (written.SOPInstanceUID, written.SeriesInstanceUID)
    if written.SOPClassUID != SEGMENTATION_STORAGE or written.Modality != "SEG" or written.SegmentationType != "BINARY":
        yield "it is no binary Segmentation"
    if written.file_meta.MediaStorageSOPInstanceUID != written.SOPInstanceUID:
        yield "its envelope names another instance"
    if not all(is_valid_uid(uid) for uid in own) or series.series_instance_uid in own or own[0] == own[1]:
        yield "its own UIDs are not valid, or not its own"
    if not written.SeriesDescription.startswith("AI DRAFT ") or not written.SeriesDescription.endswith(" unapproved"):
        yield "it does not say that it is an unapproved draft"


def _reference_problems(written: Segmentation, series: CtSeries) -> Iterator[str]:
    """Does it name the frame of reference, and all images of the series and no others?"""
    if written.FrameOfReferenceUID != series.frame_of_reference_uid:
        yield "its frame of reference is not that of the images"
    (referenced,) = written.ReferencedSeriesSequence
    if referenced.SeriesInstanceUID != series.series_instance_uid:
        yield "it refers to another series"
    listed = [
        (one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID) for one in referenced.ReferencedInstanceSequence
    ]
    if listed != [(one.sop_class_uid, one.sop_instance_uid) for one in series.slices]:
        yield "the images that it lists are not those of the series"


def _segment_problems(written: Segmentation, templates: Sequence[RoiTemplate]) -> Iterator[str]:
    """Are its segments the regions, in their order and under their names?"""
    if list(written.segment_numbers) != list(range(1, len(templates) + 1)):
        yield "its segments are not as many as the regions, or not numbered from 1"
    for template, item in zip(templates, written.SegmentSequence, strict=True):
        if item.SegmentLabel != template.name:
            yield f"segment {item.SegmentNumber} is not called {template.name}"
        if item.SegmentAlgorithmType != "AUTOMATIC":
            yield f"{template.name} does not say that it was drawn automatically"
        code = item.SegmentedPropertyTypeCodeSequence[0]
        if template.code is not None and (code.CodeValue, code.CodingSchemeDesignator) != (
            template.code.value,
            template.code.scheme,
        ):
            yield f"the code of {template.name} is not that of the region"


def _frame_problems(written: Segmentation, series: CtSeries, masks: Sequence[RoiMask]) -> Iterator[str]:
    """Does each frame lie where its image lies, and hold the voxels of its region there?"""
    geometry = series.geometry
    (shared,) = written.SharedFunctionalGroupsSequence
    directions = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=float)
    if np.abs(directions - [*geometry.row_direction, *geometry.column_direction]).max() > DIRECTION_TOLERANCE:
        yield "its orientation is not that of the images"
    if (written.Rows, written.Columns) != (geometry.rows, geometry.columns):
        yield "its frames are not as large as the images"
    slice_indices = {uid: index for index, uid in enumerate(series.sop_instance_uids)}
    found = []
    for number, item in enumerate(written.PerFrameFunctionalGroupsSequence, start=1):
        frame = _frame(item, slice_indices)
        found.append(frame)
        yield from _place_problems(item, shared, frame, series)
        if not np.array_equal(written.get_stored_frame(number), _plane(frame, masks, series)):
            yield f"frame {number} does not hold the voxels of its region"
    if found != frames_of(masks):
        yield "a frame is missing, or there twice"


def _frame(item: Dataset, slice_indices: dict[str, int]) -> Frame:
    sources = [source for derivation in item.DerivationImageSequence for source in derivation.SourceImageSequence]
    if len(sources) != 1 or sources[0].ReferencedSOPInstanceUID not in slice_indices:
        raise _invalid("a frame does not name one image of the input")
    segment = int(item.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
    return Frame(segment, slice_indices[sources[0].ReferencedSOPInstanceUID])


def _place_problems(item: Dataset, shared: Dataset, frame: Frame, series: CtSeries) -> Iterator[str]:
    position_mm = np.array(item.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
    if np.abs(position_mm - series.geometry.positions_mm[frame.slice_index]).max() > PLACE_TOLERANCE_MM:
        yield "a frame does not lie where its image lies"
    groups = item if "PixelMeasuresSequence" in item else shared
    spacing_mm = np.array(groups.PixelMeasuresSequence[0].PixelSpacing, dtype=float)
    pixels_across = max(series.geometry.rows, series.geometry.columns)
    if np.abs(spacing_mm - series.geometry.pixel_spacing_mm).max() * pixels_across > PLACE_TOLERANCE_MM:
        yield "the pixel spacing of a frame is not that of its image"


def _plane(frame: Frame, masks: Sequence[RoiMask], series: CtSeries) -> NDArray[np.bool_]:
    """Return the voxels of one region in one slice, shape (rows, columns)."""
    mask = masks[frame.segment - 1]
    z, y, x = mask.box
    plane = np.zeros((series.geometry.rows, series.geometry.columns), np.bool_)
    if z.start <= frame.slice_index < z.stop:
        plane[y, x] = mask.voxels[frame.slice_index - z.start]
    return plane


def _invalid(why: str) -> ResultRefused:
    return ResultRefused(
        Reason.RESULT_INVALID, f"the segmentation failed its own check and was not sent: {why}; report it as a defect"
    )
