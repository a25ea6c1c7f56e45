"""Masks become a DICOM Segmentation (PS3.3 §A.51): what viewers and archives show of the voxels themselves.

It holds the same regions as the structure set of the case, voxel for voxel, with the same patient, study, provenance
and warnings. Its UIDs are derived like those of the structure set, and its bytes depend on nothing else but
`created_at`.
"""

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from appliance.dicom.ct_series import CtSeries
from appliance.dicom.explicit_vr import EXPLICIT_VR_LITTLE_ENDIAN, data_set, pixel_data
from appliance.dicom.implicit_vr import Value, file_of, tag_and_vr
from appliance.dicom.result_object import ResultObject
from appliance.dicom.roi import RoiMask, RoiTemplate
from appliance.dicom.segment_elements import segment
from appliance.dicom.segment_frames import any_overlap, frame_groups, frames_of, packed, packed_length, shared_groups
from appliance.dicom.structure_set import (
    MANUFACTURER,
    SERIES_NUMBER,
    Provenance,
    algorithm_of,
    check_distinct,
    contributing_equipment,
    derivation_of,
    description_of,
    identity_of,
    patient_and_study,
    series_description,
)
from appliance.dicom.uid import derive_uid

SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4"
_NO_CODE_STRING = re.compile(r"[^A-Z0-9 _]")


@dataclass(frozen=True, slots=True, eq=False)
class SegmentedRoi:
    """One region as it goes into a Segmentation.

    Attributes:
        template: how it is written.
        mask: its voxels; without one it is described and has no frame.
        recipe: how it was derived from others, in words; empty for the model's own.
    """

    template: RoiTemplate
    mask: RoiMask
    recipe: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationObject(ResultObject):
    """A Segmentation as a DICOM file, in Explicit VR Little Endian.

    Attributes:
        segments: how many structures it holds.
        frames: how many pairs of a structure and a slice.
    """

    segments: int
    frames: int


def build_segmentation(
    series: CtSeries, regions: Sequence[SegmentedRoi], provenance: Provenance, created_at: datetime
) -> SegmentationObject:
    """Write a Segmentation for a series, one binary segment for each region.

    Args:
        series: the images that were segmented.
        regions: the regions, in the order in which they are numbered.
        provenance: what made them.
        created_at: written as date and time, in its own time zone; an image of several frames must have them.

    Raises:
        ValueError: two regions share a name (whatever the case) or a number, or none has a voxel.
    """
    templates, masks = [region.template for region in regions], [region.mask for region in regions]
    check_distinct(templates)
    frames = frames_of(masks)
    if not frames:
        raise ValueError("no region has a voxel, and a Segmentation without a frame cannot be written")
    identity = identity_of(provenance, templates)
    sop_instance_uid = derive_uid("segmentation", *identity)
    series_instance_uid = derive_uid("segmentation series", *identity)
    elements = data_set(
        **patient_and_study(series),
        **_series_and_equipment(series, provenance, series_instance_uid),
        **contributing_equipment(series, provenance, data_set),
        **_references(series),
        **_dimensions(derive_uid("segmentation dimensions", *identity)),
        **_content(series, masks, provenance, created_at),
        SOPClassUID=SEGMENTATION_STORAGE,
        SOPInstanceUID=sop_instance_uid,
        SegmentSequence=_segments(series, regions, provenance),
        NumberOfFrames=len(frames),
        SharedFunctionalGroupsSequence=[shared_groups(series.geometry)],
        PerFrameFunctionalGroupsSequence=frame_groups(frames, series),
    )
    pixels = pixel_data(packed_length(frames, series.geometry), packed(frames, masks, series.geometry))
    content = b"".join((elements, *pixels))
    return SegmentationObject(
        sop_instance_uid=sop_instance_uid,
        series_instance_uid=series_instance_uid,
        referenced_sop_instance_uids=series.sop_instance_uids,
        content=file_of(SEGMENTATION_STORAGE, sop_instance_uid, content, EXPLICIT_VR_LITTLE_ENDIAN),
        segments=len(masks),
        frames=len(frames),
    )


def _segments(series: CtSeries, regions: Sequence[SegmentedRoi], provenance: Provenance) -> list[bytes]:
    derived = derivation_of(provenance)
    return [
        segment(
            number,
            region.template,
            derived if region.recipe else algorithm_of(provenance, region.template.name),
            region.recipe,
            derive_uid("segment", series.series_instance_uid, region.template.name),
        )
        for number, region in enumerate(regions, start=1)
    ]


def _series_and_equipment(series: CtSeries, provenance: Provenance, series_instance_uid: str) -> dict[str, Value]:
    """Write Segmentation Series and Enhanced General Equipment modules (PS3.3 §C.8.20.1, §C.7.5.2)."""
    return {
        "Modality": "SEG",
        "SeriesInstanceUID": series_instance_uid,
        "SeriesNumber": SERIES_NUMBER + 1,
        "SeriesDescription": series_description(provenance),
        "Manufacturer": MANUFACTURER,
        "ManufacturerModelName": MANUFACTURER,
        "DeviceSerialNumber": provenance.station_name,  # must hold something; the box has no number of its own
        "StationName": provenance.station_name,
        "SoftwareVersions": provenance.appliance_version,
        "InstitutionName": series.slices[0].header["InstitutionName"],
        "FrameOfReferenceUID": series.frame_of_reference_uid,
    }


def _content(
    series: CtSeries, masks: Sequence[RoiMask], provenance: Provenance, created_at: datetime
) -> dict[str, Value]:
    """Write General Image, Image Pixel and Segmentation Image modules (PS3.3 §C.7.6.1, §C.7.6.3, §C.8.20.2)."""
    return {
        "ImageType": ["DERIVED", "PRIMARY"],
        "InstanceNumber": 1,
        "ContentDate": f"{created_at:%Y%m%d}",
        "ContentTime": f"{created_at:%H%M%S}",
        "ContentLabel": _NO_CODE_STRING.sub("_", provenance.label.upper()),
        "ContentDescription": "Automatic draft, not reviewed by a person; check before use",
        "ImageComments": description_of(provenance),
        "ContentCreatorName": "",
        "SegmentationType": "BINARY",
        "SegmentsOverlap": "YES" if any_overlap(masks, series.geometry) else "NO",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": series.geometry.rows,
        "Columns": series.geometry.columns,
        "BitsAllocated": 1,
        "BitsStored": 1,
        "HighBit": 0,
        "PixelRepresentation": 0,
        **_loss(series),
    }


def _loss(series: CtSeries) -> dict[str, Value]:
    """Say of the images what they say of themselves: whether compression ever cost them something."""
    for one in series.slices:
        if one.header["LossyImageCompression"].strip() == b"01":
            return {keyword: value for keyword, value in one.header.items() if "Lossy" in keyword and value}
    return {"LossyImageCompression": "00"}


def _references(series: CtSeries) -> dict[str, Value]:
    """Name the series and every image of it, in the order of the slices (PS3.3 §C.12.2)."""
    images = [
        data_set(ReferencedSOPClassUID=one.sop_class_uid, ReferencedSOPInstanceUID=one.sop_instance_uid)
        for one in series.slices
    ]
    referenced = data_set(SeriesInstanceUID=series.series_instance_uid, ReferencedInstanceSequence=images)
    return {"ReferencedSeriesSequence": [referenced]}


def _dimensions(organization_uid: str) -> dict[str, Value]:
    """Say by what the frames are told apart: segment, then position (PS3.3 §C.7.6.17)."""
    pointers = (
        ("ReferencedSegmentNumber", "SegmentIdentificationSequence", "Segment"),
        ("ImagePositionPatient", "PlanePositionSequence", "Position"),
    )
    return {
        "DimensionOrganizationSequence": [data_set(DimensionOrganizationUID=organization_uid)],
        "DimensionIndexSequence": [
            data_set(
                DimensionOrganizationUID=organization_uid,
                DimensionIndexPointer=_pointer(element),
                FunctionalGroupPointer=_pointer(group),
                DimensionDescriptionLabel=label,
            )
            for element, group, label in pointers
        ],
    }


def _pointer(keyword: str) -> bytes:
    tag, _ = tag_and_vr(keyword)
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF)
