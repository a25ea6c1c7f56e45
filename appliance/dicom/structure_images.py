"""Is a structure set for these images? Patient, study, series, frame of reference, images and grid are compared."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from appliance.dicom.ct_series import DIRECTION_TOLERANCE, GAP_TOLERANCE_MM, CtSeries
from appliance.dicom.element_walk import DataSet
from appliance.dicom.findings import amount
from appliance.dicom.header import DECIMAL, decode_text
from appliance.dicom.structure_file import WrittenStructureSet, whole_number

GRID_TOLERANCE_MM = 0.01
"""How far the corners of a stated grid may lie from those of the images, where coordinates have been rounded."""


def misfit(written: WrittenStructureSet, series: CtSeries) -> str | None:
    """Say in what a structure set does not fit the images, for the middle of a sentence; None when it fits."""
    return next((words for _, words in misfits(written, series)), None)


def misfits(written: WrittenStructureSet, series: CtSeries) -> Iterator[tuple[str, str]]:
    """Yield all in which a structure set does not fit the images: a stable code, and words without the patient's."""
    yield from _other_patient_or_study(written, series)
    if not written.frame_uids:
        yield "frame_of_reference_missing", "it names no frame of reference"
    elif set(written.frame_uids) != {series.frame_of_reference_uid}:
        yield "frame_of_reference_differs", "it names another frame of reference than the images have"
    yield from _other_images(written, series)
    yield from _other_grid(written, series)


def _other_patient_or_study(written: WrittenStructureSet, series: CtSeries) -> Iterator[tuple[str, str]]:
    source = series.slices[0].header
    for keyword, words in (("PatientID", "the patient's ID"), ("PatientBirthDate", "the patient's date of birth")):
        theirs, ours = _text(written.header, keyword), _source_text(source[keyword], source["SpecificCharacterSet"])
        # some programs leave the date of birth out; an ID that is there on one side only identifies nobody
        if theirs != ours and (keyword == "PatientID" or (theirs and ours)):
            yield "patient_differs", f"{words} is not that of the images"
    if written.header.ascii("StudyInstanceUID") != series.study_instance_uid:
        yield "study_differs", "its study is not that of the images"


def _other_images(written: WrittenStructureSet, series: CtSeries) -> Iterator[tuple[str, str]]:
    ours = set(series.sop_instance_uids)
    if written.series_uids and series.series_instance_uid not in written.series_uids:
        yield "series_differs", "it refers to another series"
    listed = {uid for series_uid, uids in written.images if series_uid == series.series_instance_uid for uid in uids}
    if listed - ours:
        yield "image_unknown", f"it lists {amount(len(listed - ours), 'image')} outside the series"
    contoured = {uid for one in written.roi_contours for contour in one.contours for uid in contour.image_uids}
    if contoured - ours:
        yield "image_unknown", f"it has contours on {amount(len(contoured - ours), 'image')} outside the series"


def _other_grid(written: WrittenStructureSet, series: CtSeries) -> Iterator[tuple[str, str]]:
    grids = [planes for one in written.roi_contours for planes in one.source_planes]
    if any(not _is_grid_of(planes, series) for planes in grids):
        yield "source_grid_differs", "it says that it was drawn on a grid of voxels that is not that of the images"


def _is_grid_of(planes: DataSet, series: CtSeries) -> bool:
    """Compare what is there of a Source Pixel Planes Characteristics item (PS3.3 §C.8.8.6.4) with the images' grid."""
    geometry = series.geometry
    heights_mm = geometry.positions_mm @ np.asarray(geometry.normal)
    gaps_mm = np.abs(np.diff(heights_mm))
    per_pixel_mm = GRID_TOLERANCE_MM / max(geometry.rows, geometry.columns)
    directions = [*geometry.row_direction, *geometry.column_direction]
    ends_mm = geometry.positions_mm[[0, -1]]
    return (
        planes.unsigned("Rows") in (0, geometry.rows)
        and planes.unsigned("Columns") in (0, geometry.columns)
        and whole_number(planes.ascii("NumberOfFrames") or str(len(series.slices))) == len(series.slices)
        and _differ(planes, "PixelSpacing", [geometry.pixel_spacing_mm]) <= per_pixel_mm
        and _differ(planes, "ImageOrientationPatient", [directions]) <= DIRECTION_TOLERANCE
        and _differ(planes, "ImagePositionPatient", ends_mm) <= GRID_TOLERANCE_MM
        and _differ(planes, "SpacingBetweenSlices", gaps_mm[:, np.newaxis]) <= GAP_TOLERANCE_MM
    )


def _differ(planes: DataSet, keyword: str, allowed: ArrayLike) -> float:
    """Return how far the written numbers are from the nearest row of those allowed; 0 when none are written."""
    rows = np.asarray(allowed, dtype=np.float64)
    texts = planes.raw(keyword).split(b"\\")
    if texts == [b""]:
        return 0.0
    if len(texts) != rows.shape[1] or not all(DECIMAL.fullmatch(text) for text in texts):
        return np.inf
    return float(np.abs(rows - [float(text) for text in texts]).max(axis=1).min())


def _text(header: DataSet, keyword: str) -> str:
    return decode_text(header.raw(keyword), header.raw("SpecificCharacterSet")).strip()


def _source_text(value: bytes, character_set: bytes) -> str:
    return decode_text(value.strip(b" \0"), character_set.strip(b" \0")).strip()
