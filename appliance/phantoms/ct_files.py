"""A phantom as a CT series: one CT Image Storage file per slice (PS3.3 A.3), Explicit VR Little Endian."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from appliance.dicom.uid import derive_uid
from appliance.phantoms.phantom import Phantom

IMPLEMENTATION_CLASS_UID = UID("2.25.212233547836418094706217336271158523861")
"""Names the writer of these files in their File Meta Information."""
_INTERCEPT_HU = -1024
_DATE, _TIME = "20260102", "080000"


@dataclass(frozen=True, slots=True)
class SeriesIdentity:
    """The names and numbers of a series that do not come from its voxels."""

    patient_id: str
    patient_name: str
    study_uid: str
    series_uid: str
    frame_of_reference_uid: str
    body_part: str


def write_ct_series(  # noqa: PLR0913  every argument after the folder is an optional keyword
    phantom: Phantom,
    folder: Path,
    *,
    patient_id: str | None = None,
    patient_name: str = "Phantom^Pelvis",
    study_uid: str | None = None,
    series_uid: str | None = None,
    body_part: str = "PELVIS",
) -> list[Path]:
    """Write one file per slice, feet first, named by instance number; the folder is made.

    Every UID that is not given is derived from the phantom, so the same phantom gives the same bytes.

    Returns:
        The paths in ascending slice position.
    """
    digest = hashlib.sha256(phantom.hu.tobytes()).hexdigest()
    identity = SeriesIdentity(
        patient_id=patient_id or f"PHANTOM-{phantom.seed:04d}",
        patient_name=patient_name,
        study_uid=study_uid or derive_uid(digest, str(phantom.seed), "study"),
        series_uid=series_uid or derive_uid(digest, str(phantom.seed), "series"),
        frame_of_reference_uid=derive_uid(digest, str(phantom.seed), "frame of reference"),
        body_part=body_part,
    )
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(len(phantom.hu)):
        path = folder / f"CT{index + 1:04d}.dcm"
        ct_slice(phantom, index, identity).save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def ct_slice(phantom: Phantom, index: int, identity: SeriesIdentity) -> Dataset:
    """One slice as a CT Image data set with its File Meta Information."""
    slice_ = Dataset()
    slice_.SOPClassUID = CTImageStorage
    slice_.SOPInstanceUID = derive_uid(identity.series_uid, str(index + 1))
    _add_patient_and_study(slice_, phantom, identity)
    _add_series_and_equipment(slice_, identity)
    _add_geometry(slice_, phantom, index, identity)
    _add_pixels(slice_, phantom, index)
    slice_.file_meta = FileMetaDataset()
    slice_.file_meta.MediaStorageSOPClassUID = slice_.SOPClassUID
    slice_.file_meta.MediaStorageSOPInstanceUID = slice_.SOPInstanceUID
    slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    slice_.file_meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    return slice_


def _add_patient_and_study(slice_: Dataset, phantom: Phantom, identity: SeriesIdentity) -> None:
    slice_.PatientName = identity.patient_name
    slice_.PatientID = identity.patient_id
    slice_.PatientBirthDate = "19500101"
    slice_.PatientSex = "M" if phantom.sex == "male" else "F"
    slice_.StudyInstanceUID = identity.study_uid
    slice_.StudyID = str(phantom.seed)
    slice_.StudyDate = slice_.SeriesDate = slice_.AcquisitionDate = slice_.ContentDate = _DATE
    slice_.StudyTime = slice_.SeriesTime = slice_.AcquisitionTime = slice_.ContentTime = _TIME
    slice_.AccessionNumber = f"P{phantom.seed:07d}"
    slice_.ReferringPhysicianName = ""
    slice_.StudyDescription = "Synthetic phantom, not a patient"


def _add_series_and_equipment(slice_: Dataset, identity: SeriesIdentity) -> None:
    slice_.Modality = "CT"
    slice_.SeriesInstanceUID = identity.series_uid
    slice_.SeriesNumber = 1
    slice_.SeriesDescription = "Synthetic pelvis"
    slice_.BodyPartExamined = identity.body_part
    slice_.PatientPosition = "HFS"
    slice_.Manufacturer = "Delineate"
    slice_.ManufacturerModelName = "Phantom"
    slice_.InstitutionName = "Delineate"
    slice_.DeviceSerialNumber = "1"
    slice_.SoftwareVersions = "1"


def _add_geometry(slice_: Dataset, phantom: Phantom, index: int, identity: SeriesIdentity) -> None:
    dz, dy, dx = phantom.spacing_mm
    x, y, z = phantom.origin_mm
    slice_.FrameOfReferenceUID = identity.frame_of_reference_uid
    slice_.PositionReferenceIndicator = ""
    slice_.AcquisitionNumber = 1
    slice_.InstanceNumber = index + 1
    slice_.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    slice_.ImagePositionPatient = [_decimal(x), _decimal(y), _decimal(z + index * dz)]
    slice_.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    slice_.SliceLocation = _decimal(z + index * dz)
    slice_.SliceThickness = _decimal(dz)
    slice_.PixelSpacing = [_decimal(dy), _decimal(dx)]
    slice_.KVP = 120
    slice_.ReconstructionDiameter = _decimal(phantom.hu.shape[2] * dx)


def _add_pixels(slice_: Dataset, phantom: Phantom, index: int) -> None:
    plane = phantom.hu[index]
    slice_.SamplesPerPixel = 1
    slice_.PhotometricInterpretation = "MONOCHROME2"
    slice_.Rows, slice_.Columns = plane.shape
    slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit = 16, 12, 11
    slice_.PixelRepresentation = 0
    slice_.RescaleIntercept, slice_.RescaleSlope, slice_.RescaleType = _INTERCEPT_HU, 1, "HU"
    slice_.WindowCenter, slice_.WindowWidth = 40, 400
    stored = (plane.astype(np.int32) - _INTERCEPT_HU).astype("<u2")
    slice_.PixelData = stored.tobytes()
    slice_["PixelData"].VR = "OW"


def _decimal(value: float) -> str:
    """A decimal string of at most 16 characters (PS3.5 6.2, VR DS), to a tenth of a micrometre."""
    return f"{value:.4f}".rstrip("0").rstrip(".")
