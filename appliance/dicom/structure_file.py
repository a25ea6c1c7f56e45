"""What a structure set file says, whoever wrote it, before anybody asks whether it is right.

The parts of PS3.3 §C.8.8.5, §C.8.8.6 and §C.8.8.8 that say where a structure lies and what it stands for are taken out
as they are written; what is absent or malformed stays so, for `structure_check.py` to report and for
`structure_reader.py` to refuse.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from appliance.dicom.element_walk import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    Damaged,
    DataSet,
    end_of_meta,
    read_data_set,
)
from appliance.dicom.header import decode_text
from appliance.dicom.structure_set import RT_STRUCTURE_SET_STORAGE
from appliance.errors import Reason, StructureSetRefused

VOLUME_TYPES = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
"""Contour Geometric Types that bound a volume (PS3.3 §C.8.8.6.1)."""

OTHER_TYPES = ("POINT", "OPEN_PLANAR", "OPEN_NONPLANAR")
"""Contour Geometric Types that bound none."""

_ENCODINGS = {
    "1.2.840.10008.1.2": IMPLICIT_LITTLE,
    "1.2.840.10008.1.2.1": EXPLICIT_LITTLE,
    "1.2.840.10008.1.2.2": EXPLICIT_BIG,
}
_META = 132  #: where File Meta Information begins
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,12}")


@dataclass(frozen=True, slots=True)
class WrittenContour:
    """One item of a Contour Sequence.

    Attributes:
        geometric_type: Contour Geometric Type; empty when it is absent.
        declared_points: Number of Contour Points; None when it is absent or no number.
        image_uids: the images of its Contour Image Sequence.
        coordinates: Contour Data as bytes, numbers with backslashes between them.
    """

    geometric_type: str
    declared_points: int | None
    image_uids: tuple[str, ...]
    coordinates: bytes

    @property
    def is_closed(self) -> bool:
        """Whether it is of a type that bounds a volume, however many points it has."""
        return self.geometric_type in VOLUME_TYPES


@dataclass(frozen=True, slots=True)
class WrittenRoi:
    """One item of the Structure Set ROI Sequence.

    Attributes:
        number: ROI Number; None when it is absent or no number.
        name: ROI Name as it is written, spaces included.
        frame_of_reference_uid: Referenced Frame of Reference UID.
        algorithm: ROI Generation Algorithm.
        volume_cm3: ROI Volume as text.
    """

    number: int | None
    name: str
    frame_of_reference_uid: str
    algorithm: str
    volume_cm3: str


@dataclass(frozen=True, slots=True)
class WrittenContours:
    """One item of the ROI Contour Sequence.

    Attributes:
        number: Referenced ROI Number; None when it is absent or no number.
        contours: the items of its Contour Sequence.
        has_sequence: whether there is a Contour Sequence, be it empty.
        source_planes: items of the Source Pixel Planes Characteristics Sequence: the grid that it was drawn on.
    """

    number: int | None
    contours: tuple[WrittenContour, ...]
    has_sequence: bool
    source_planes: tuple[DataSet, ...]


@dataclass(frozen=True, slots=True)
class WrittenObservation:
    """One item of the RT ROI Observations Sequence.

    Attributes:
        number: Referenced ROI Number; None when it is absent or no number.
        interpreted_type: RT ROI Interpreted Type.
        related: ROI numbers that it was derived from or is otherwise related to.
    """

    number: int | None
    interpreted_type: str
    related: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class WrittenStructureSet:
    """A structure set file.

    Attributes:
        meta: File Meta Information.
        header: the top-level elements.
        frame_uids: every frame of reference that it names, those of its regions included.
        images: the images that it lists, by Series Instance UID.
    """

    meta: DataSet
    header: DataSet
    frame_uids: tuple[str, ...]
    images: tuple[tuple[str, tuple[str, ...]], ...]
    rois: tuple[WrittenRoi, ...]
    roi_contours: tuple[WrittenContours, ...]
    observations: tuple[WrittenObservation, ...]

    @property
    def series_uids(self) -> tuple[str, ...]:
        """Series Instance UIDs that it refers to."""
        return tuple(uid for uid, _ in self.images)

    @property
    def image_uids(self) -> frozenset[str]:
        """Every image that it names, in its lists or for a contour."""
        listed = {uid for _, uids in self.images for uid in uids}
        contoured = {uid for one in self.roi_contours for contour in one.contours for uid in contour.image_uids}
        return frozenset(listed | contoured)


def read_structure_file(content: bytes) -> WrittenStructureSet:
    """Take a structure set file apart.

    Raises:
        StructureSetRefused: STRUCTURE_SET_UNREADABLE, for anything that is no such file; nothing else, whatever the
            bytes hold. Deflated files are never unpacked.
    """
    try:
        return _take_apart(*_open(content))
    except Damaged as damage:
        raise StructureSetRefused(
            Reason.STRUCTURE_SET_UNREADABLE,
            f"the file cannot be read as a structure set: {damage}; export it again at its source",
        ) from damage


def whole_number(text: str) -> int | None:
    """Read an integer string (PS3.5 §6.2); None when it is none."""
    return int(text) if _WHOLE_NUMBER.fullmatch(text) else None


def _open(content: bytes) -> tuple[DataSet, DataSet]:
    """Return File Meta Information and data set of a file that holds a structure set."""
    if content[128:132] != b"DICM":
        raise Damaged("it does not begin as a DICOM file does")
    start = end_of_meta(content, _META)
    meta = read_data_set(content, _META, start, EXPLICIT_LITTLE)
    encoding = _ENCODINGS.get(meta.ascii("TransferSyntaxUID"))
    if encoding is None:
        raise Damaged("its transfer syntax is missing, deflated or not one of a structure set")
    header = read_data_set(content, start, len(content), encoding)
    if header.ascii("SOPClassUID") != RT_STRUCTURE_SET_STORAGE:
        raise Damaged("it is no RT Structure Set but of another class")
    return meta, header


def _take_apart(meta: DataSet, header: DataSet) -> WrittenStructureSet:
    character_set = header.raw("SpecificCharacterSet")
    frames = header.items("ReferencedFrameOfReferenceSequence")
    rois = tuple(_roi(item, character_set) for item in header.items("StructureSetROISequence"))
    frame_uids = [header.ascii("FrameOfReferenceUID"), *(item.ascii("FrameOfReferenceUID") for item in frames)]
    frame_uids += [roi.frame_of_reference_uid for roi in rois]
    return WrittenStructureSet(
        meta=meta,
        header=header,
        frame_uids=tuple(dict.fromkeys(uid for uid in frame_uids if uid)),
        images=tuple(_listed_images(frames)),
        rois=rois,
        roi_contours=tuple(_roi_contours(item) for item in header.items("ROIContourSequence")),
        observations=tuple(_observation(item) for item in header.items("RTROIObservationsSequence")),
    )


def _listed_images(frames: list[DataSet]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for frame in frames:
        for study in frame.items("RTReferencedStudySequence"):
            for series in study.items("RTReferencedSeriesSequence"):
                yield series.ascii("SeriesInstanceUID"), _image_uids(series)


def _image_uids(item: DataSet) -> tuple[str, ...]:
    return tuple(image.ascii("ReferencedSOPInstanceUID") for image in item.items("ContourImageSequence"))


def _roi(item: DataSet, character_set: bytes) -> WrittenRoi:
    return WrittenRoi(
        number=whole_number(item.ascii("ROINumber")),
        name=_name(item, character_set),
        frame_of_reference_uid=item.ascii("ReferencedFrameOfReferenceUID"),
        algorithm=item.ascii("ROIGenerationAlgorithm"),
        volume_cm3=item.ascii("ROIVolume"),
    )


def _name(item: DataSet, character_set: bytes) -> str:
    """Return the name with every space in it but the one that fills it up to an even length."""
    value = item.untouched("ROIName")
    padded = value.endswith((b" ", b"\0")) and len(value) % 2 == 0 and not value.endswith(b"  ")
    return decode_text(value[:-1] if padded else value, item.raw("SpecificCharacterSet") or character_set)


def _roi_contours(item: DataSet) -> WrittenContours:
    return WrittenContours(
        number=whole_number(item.ascii("ReferencedROINumber")),
        contours=tuple(_contour(contour) for contour in item.items("ContourSequence")),
        has_sequence="ContourSequence" in item,
        source_planes=tuple(item.items("SourcePixelPlanesCharacteristicsSequence")),
    )


def _contour(item: DataSet) -> WrittenContour:
    return WrittenContour(
        geometric_type=item.ascii("ContourGeometricType"),
        declared_points=whole_number(item.ascii("NumberOfContourPoints")),
        image_uids=_image_uids(item),
        coordinates=item.raw("ContourData"),
    )


def _observation(item: DataSet) -> WrittenObservation:
    related = item.items("RTRelatedROISequence")
    return WrittenObservation(
        number=whole_number(item.ascii("ReferencedROINumber")),
        interpreted_type=item.ascii("RTROIInterpretedType"),
        related=tuple(whole_number(one.ascii("ReferencedROINumber")) for one in related),
    )
