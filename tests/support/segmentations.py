"""Segmentations of small known regions."""

from collections.abc import Mapping
from datetime import UTC, datetime
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, SegmentationStorage

from appliance.dicom.ct_series import CtSeries
from appliance.dicom.roi import RoiMask
from appliance.dicom.segmentation_object import SegmentationObject, SegmentedRoi, build_segmentation
from appliance.dicom.structure_set import Provenance
from tests.support.structure_sets import PROVENANCE, template

NOON = datetime(2026, 1, 2, 12, 0, 5, tzinfo=UTC)


def regions_of(masks: Mapping[str, NDArray[np.bool_]]) -> list[SegmentedRoi]:
    """Crop masks of the whole grid, numbered from 1."""
    return [
        SegmentedRoi(template(name, number), RoiMask.from_volume(name, voxels))
        for number, (name, voxels) in enumerate(masks.items(), start=1)
    ]


def segmentation_of(
    series: CtSeries,
    masks: Mapping[str, NDArray[np.bool_]],
    *,
    provenance: Provenance = PROVENANCE,
    created_at: datetime = NOON,
) -> SegmentationObject:
    """Write masks of the whole grid."""
    return build_segmentation(series, regions_of(masks), provenance, created_at)


def small_segmentation(sop_instance_uid: str) -> bytes:
    """Return the smallest file that can be sent as a Segmentation under this UID."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = SegmentationStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = UID(sop_instance_uid)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
