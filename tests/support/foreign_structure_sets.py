"""Structure sets as other programs write them, made with pydicom and nothing of the appliance's own writer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread, dcmwrite
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RTStructureSetStorage,
    generate_uid,
)

from appliance.dicom.contours import Drawing, trace
from appliance.dicom.ct_series import CtSeries
from appliance.dicom.roi import RoiMask

_COPIED = (
    "SpecificCharacterSet",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
)

#: slice of a contour and its points, shape (N, 3)
Drawn = tuple[int, NDArray[np.float64]]


@dataclass(frozen=True)
class Form:
    """How a program writes structure sets."""

    syntax: UID = ExplicitVRLittleEndian
    keyhole: bool = False
    decimals: int = 2
    geometric_type: str = "CLOSED_PLANAR"
    images: bool = True  #: every contour names its image
    empty_sequences: bool = False  #: an empty region has a Contour Sequence without items
    undefined_lengths: bool = False
    change: Callable[[FileDataset], object] = lambda _: None


def _as_rt_utils(dataset: FileDataset) -> None:
    del dataset.FrameOfReferenceUID, dataset.AccessionNumber, dataset.ReferringPhysicianName, dataset.OperatorsName
    for one in dataset.RTROIObservationsSequence:
        one.RTROIInterpretedType = ""
    for one in dataset.ROIContourSequence[1].ContourSequence:
        del one.ContourImageSequence


def _as_plastimatch(dataset: FileDataset) -> None:
    del dataset.FrameOfReferenceUID, dataset.OperatorsName, dataset.ApprovalStatus
    dataset.PatientBirthDate = ""
    for one in dataset.StructureSetROISequence:
        one.ROIGenerationAlgorithm = ""


def _as_dicom_rt_tool(dataset: FileDataset) -> None:
    del dataset.StructureSetLabel, dataset.SeriesNumber
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    for sequence in (dataset.StructureSetROISequence, dataset.ROIContourSequence, dataset.RTROIObservationsSequence):
        sequence[:] = list(sequence)[::-1]


def _as_raystation(dataset: FileDataset) -> None:
    """Empty regions have no item among the contours, which are in another order than the regions."""
    kept = [item for item in dataset.ROIContourSequence if "ContourSequence" in item]
    dataset.ROIContourSequence = [*kept[2:], *kept[:2]]
    del dataset.RTROIObservationsSequence[1]


def _as_unknown_bytes(dataset: FileDataset) -> None:
    """Contour Data too long for explicit VR is written as bytes of unknown representation (PS3.5 §6.2.2)."""
    for region in dataset.ROIContourSequence:
        for contour in region.get("ContourSequence", ()):
            text = "\\".join(map(str, contour.ContourData)).encode()
            contour["ContourData"] = DataElement("ContourData", "OB", text + b" " * (len(text) % 2))
            contour["ContourData"].VR = "UN"  # given at once, it would be corrected


FORMS = {
    "rt-utils": Form(decimals=15, empty_sequences=True, syntax=ImplicitVRLittleEndian, change=_as_rt_utils),
    "pydicomrt": Form(decimals=12, syntax=ImplicitVRLittleEndian),
    "plastimatch": Form(keyhole=True, decimals=6, change=_as_plastimatch),
    "DicomRTTool": Form(images=False, change=_as_dicom_rt_tool),
    "RayStation": Form(undefined_lengths=True, change=_as_raystation),
    "exclusive or": Form(geometric_type="CLOSEDPLANAR_XOR"),
    "big endian": Form(syntax=ExplicitVRBigEndian),
    "unknown bytes": Form(change=_as_unknown_bytes),
}


def foreign_structure_set(
    paths: Sequence[Path], series: CtSeries, regions: Mapping[str, NDArray[np.bool_]], form: Form | None = None
) -> bytes:
    """Write regions, given as voxels of the series, as another program does."""
    form = form or Form()
    drawn = {}
    for name, voxels in regions.items():
        mask = RoiMask.from_volume(name, voxels)
        contours = trace(mask, series.geometry, Drawing(keyhole=form.keyhole)).contours
        drawn[name] = [(contour.slice_index, contour.points_mm) for contour in contours]
    return drawn_structure_set(paths, series, drawn, form)


def drawn_structure_set(
    paths: Sequence[Path], series: CtSeries, drawn: Mapping[str, Sequence[Drawn]], form: Form | None = None
) -> bytes:
    """Write contours as another program does; `paths` are in the order of the slices of the series."""
    form = form or Form()
    image = dcmread(paths[0], stop_before_pixels=True)
    dataset = _without_regions(image, series, form)
    dataset.StructureSetROISequence, dataset.ROIContourSequence, dataset.RTROIObservationsSequence = [], [], []
    for number, (name, contours) in enumerate(drawn.items(), start=3):
        roi, item, observation = Dataset(), Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ROIGenerationAlgorithm = number, name, "MANUAL"
        roi.ReferencedFrameOfReferenceUID = image.FrameOfReferenceUID
        item.ReferencedROINumber = observation.ReferencedROINumber = observation.ObservationNumber = number
        observation.RTROIInterpretedType, observation.ROIInterpreter = "ORGAN", ""
        if contours or form.empty_sequences:
            item.ContourSequence = [_contour(index, points_mm, series, form) for index, points_mm in contours]
        for sequence, one in (
            (dataset.StructureSetROISequence, roi),
            (dataset.ROIContourSequence, item),
            (dataset.RTROIObservationsSequence, observation),
        ):
            sequence.append(one)
    form.change(dataset)
    if form.undefined_lengths:
        _open_ends(dataset)
    return saved(dataset)


def saved(dataset: FileDataset) -> bytes:
    """Return a data set as a file."""
    written = BytesIO()
    dcmwrite(written, dataset, enforce_file_format=False)
    return written.getvalue()


def _without_regions(image: Dataset, series: CtSeries, form: Form) -> FileDataset:
    meta = FileMetaDataset()
    meta.FileMetaInformationGroupLength, meta.FileMetaInformationVersion = 0, b"\0\1"
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = RTStructureSetStorage, UID("1.2.826.0.1.3680043.1")
    meta.TransferSyntaxUID, meta.ImplementationClassUID = form.syntax, UID("1.2.826.0.1.3680043.2")
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    for keyword in _COPIED:
        if keyword in image:
            dataset[keyword] = image[keyword]
    dataset.SOPClassUID, dataset.SOPInstanceUID = RTStructureSetStorage, meta.MediaStorageSOPInstanceUID
    dataset.SeriesInstanceUID, dataset.SeriesNumber = UID("1.2.826.0.1.3680043.3"), 1
    dataset.Modality, dataset.Manufacturer, dataset.OperatorsName = "RTSTRUCT", "Another", ""
    dataset.StructureSetLabel, dataset.StructureSetDate, dataset.StructureSetTime = "RTSTRUCT", "20260102", "101500"
    dataset.ApprovalStatus = "UNAPPROVED"
    frame, study, listed = Dataset(), Dataset(), Dataset()
    listed.SeriesInstanceUID = series.series_instance_uid
    listed.ContourImageSequence = [_reference(index, series) for index in range(len(series.slices))]
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", series.study_instance_uid
    study.RTReferencedSeriesSequence = [listed]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = series.frame_of_reference_uid, [study]
    dataset.ReferencedFrameOfReferenceSequence = [frame]
    return dataset


def _contour(index: int, points_mm: NDArray[np.float64], series: CtSeries, form: Form) -> Dataset:
    item = Dataset()
    if form.images:
        item.ContourImageSequence = [_reference(index, series)]
    item.ContourGeometricType, item.NumberOfContourPoints = form.geometric_type, len(points_mm)
    text = "\\".join(f"{coordinate_mm:.{form.decimals}f}" for coordinate_mm in points_mm.ravel()).encode()
    item["ContourData"] = DataElement("ContourData", "OB", text + b" " * (len(text) % 2))
    if form.syntax.is_implicit_VR is False:
        item["ContourData"].VR = "DS"
        item["ContourData"]._value = text.decode().split("\\")
    return item


def _reference(index: int, series: CtSeries) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = series.slices[index].sop_class_uid
    reference.ReferencedSOPInstanceUID = series.slices[index].sop_instance_uid
    return reference


def _open_ends(dataset: Dataset) -> None:
    """Let every sequence and item be of undefined length."""
    for element in dataset:
        if element.VR == "SQ":
            element.is_undefined_length = True
            for item in element.value:
                item.is_undefined_length_sequence_item = True
                _open_ends(item)
