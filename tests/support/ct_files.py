"""Small CT series as DICOM files, correct or broken in any one way.

A mutation is a function that gets the index of a slice and its data set just before it is saved.
"""

import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.charset import convert_encodings
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless
from pydicom.valuerep import PersonName

from appliance.dicom.ct_series import CtSeries, assemble_series
from appliance.dicom.ct_slice import parse_slice
from appliance.dicom.uid import derive_uid

Mutation = Callable[[int, Dataset], None]

#: Image Orientation (Patient) by patient position, as scanners write it for axial images
ORIENTATIONS = {
    "HFS": (1, 0, 0, 0, 1, 0),
    "HFP": (-1, 0, 0, 0, -1, 0),
    "FFS": (-1, 0, 0, 0, 1, 0),
    "FFP": (1, 0, 0, 0, -1, 0),
    "HFDL": (0, -1, 0, 1, 0, 0),
    "HFDR": (0, 1, 0, -1, 0, 0),
    "FFDL": (0, 1, 0, 1, 0, 0),
    "FFDR": (0, -1, 0, -1, 0, 0),
}
INTERCEPT_HU = -1024

#: how dcmtk makes each compressed transfer syntax; JPEG 2000, which it cannot make, is made here
_ENCODERS = {
    "1.2.840.10008.1.2": ("dcmconv", "+ti"),
    "1.2.840.10008.1.2.5": ("dcmcrle",),
    "1.2.840.10008.1.2.4.57": ("dcmcjpeg", "+el", "+sv", "4"),
    "1.2.840.10008.1.2.4.70": ("dcmcjpeg", "+e1"),
    "1.2.840.10008.1.2.4.80": ("dcmcjpls", "+el"),
}


def make_ct_series(
    folder: Path,
    *,
    slices: int = 12,
    rows: int = 32,
    columns: int = 40,
    gap_mm: float = 3.0,
    pixel_spacing_mm: tuple[float, float] = (0.9, 1.3),
    origin_mm: tuple[float, float, float] = (-185.044, -311.319, -812.0),
    orientation: str | Sequence[float] = "HFS",
    patient_name: str | bytes = "Phantom^Test",
    charset: str | Sequence[str] | None = "ISO_IR 100",
    hu: NDArray[np.int16] | None = None,
    series: str = "series",
    mutate: Mutation | None = None,
) -> list[Path]:
    """Write one file a slice and return the paths, ascending along the normal.

    `patient_name` as bytes is written as it stands. `series` is a seed: another one gives other UIDs for the series
    and its instances, within the same study.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cosines = [float(cosine) for cosine in (ORIENTATIONS[orientation] if isinstance(orientation, str) else orientation)]
    normal = np.cross(cosines[:3], cosines[3:])
    voxels = sample_hu((slices, rows, columns)) if hu is None else hu
    paths = []
    for index in range(slices):
        dataset = _ct_dataset(index, series, patient_name, charset)
        position_mm = np.asarray(origin_mm) + index * gap_mm * normal
        dataset.ImagePositionPatient = [f"{coordinate_mm:.6f}".rstrip("0") + "0" for coordinate_mm in position_mm]
        dataset.ImageOrientationPatient = [f"{cosine:.12g}"[:16] for cosine in cosines]
        dataset.PixelSpacing = list(pixel_spacing_mm)
        _set_pixels(dataset, voxels[index])
        if mutate is not None:
            mutate(index, dataset)
        path = folder / f"{index:04d}.dcm"
        dataset.save_as(path)  # as it is: a broken data set must not be corrected
        paths.append(path)
    return paths


def make_tilted_series(folder: Path, degrees: float, **options: Any) -> list[Path]:
    """Write a series of a gantry that is tilted about the patient's left-right axis, while the table moves along z."""
    cosine, sine = float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))
    gap_mm = options.get("gap_mm", 3.0)
    x_mm, y_mm, z_mm = options.get("origin_mm", (-185.044, -311.319, -812.0))

    def along_the_table(index: int, dataset: Dataset) -> None:
        dataset.ImagePositionPatient = [x_mm, y_mm, f"{z_mm + index * gap_mm:.6f}"]

    return make_ct_series(folder, orientation=(1.0, 0.0, 0.0, 0.0, cosine, sine), mutate=along_the_table, **options)


def read_series(paths: Iterable[Path]) -> CtSeries:
    """Parse and assemble files as the appliance does."""
    return assemble_series([parse_slice(path) for path in paths])


def only_slice(index: int, **changes: object) -> Mutation:
    """Make a mutation that sets elements, by keyword, of one slice; None deletes the element."""

    def mutate(current: int, dataset: Dataset) -> None:
        if current == index:
            all_slices(**changes)(current, dataset)

    return mutate


def all_slices(**changes: object) -> Mutation:
    """Make a mutation that sets elements, by keyword, of every slice; None deletes the element."""

    def mutate(_current: int, dataset: Dataset) -> None:
        for keyword, value in changes.items():
            if value is None:
                del dataset[keyword]
            else:
                set_raw(dataset, keyword, value) if isinstance(value, bytes) else setattr(dataset, keyword, value)

    return mutate


def set_raw(dataset: Dataset, keyword: str, value: bytes) -> None:
    """Set an element to bytes as they stand, valid or not; the file gives it the representation OB."""
    dataset[keyword] = DataElement(keyword, "OB", value + b" " * (len(value) % 2))


def sample_hu(shape: tuple[int, int, int]) -> NDArray[np.int16]:
    """Return Hounsfield units that differ everywhere, so that no slice, row or column can be mistaken."""
    z, y, x = np.indices(shape)
    return (z * 101 + y * 7 + x * 13 - 900).astype(np.int16)


def compress(path: Path, transfer_syntax_uid: str) -> Path:
    """Change the transfer syntax of a file in place."""
    if transfer_syntax_uid == JPEG2000Lossless:
        _compress_jpeg_2000(path)
    else:
        packed = path.with_suffix(".packed")
        subprocess.run([*_ENCODERS[transfer_syntax_uid], path, packed], check=True, capture_output=True)
        packed.replace(path)
    assert dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID == transfer_syntax_uid
    return path


def truncate(path: Path, keep: float) -> Path:
    """Cut a file short to a part of its length."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    return path


def _ct_dataset(index: int, series: str, patient_name: str | bytes, charset: str | Sequence[str] | None) -> Dataset:
    """Return everything but geometry and pixels."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.preamble = bytes(128)
    dataset.file_meta.FileMetaInformationGroupLength = 0  # the writer puts the length in
    dataset.file_meta.FileMetaInformationVersion = b"\0\1"
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if charset is not None:
        dataset.SpecificCharacterSet = charset
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = derive_uid("test", series, "instance", str(index))
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.SeriesInstanceUID = derive_uid("test", series)
    dataset.StudyInstanceUID = derive_uid("test", "study")
    dataset.FrameOfReferenceUID = derive_uid("test", "frame of reference")
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20260102", "101500", "S1"
    dataset.AccessionNumber, dataset.ReferringPhysicianName = "ACC1", "Referrer^One"
    dataset.StudyDescription, dataset.SeriesDescription = "CT PELVIS RT PLANNING", "Pelvis 3.0"
    dataset.Modality, dataset.BodyPartExamined = "CT", "PELVIS"
    dataset.Manufacturer, dataset.ManufacturerModelName = "ACME", "Sim CT"
    dataset.PatientName = PersonName(patient_name, convert_encodings(charset))
    dataset.PatientID, dataset.PatientBirthDate, dataset.PatientSex = "TEST-0001", "19500102", "M"
    dataset.PatientPosition, dataset.PositionReferenceIndicator = "HFS", ""
    dataset.SeriesNumber, dataset.AcquisitionNumber, dataset.InstanceNumber = 3, 1, index + 1
    dataset.SliceThickness, dataset.KVP = 3, 120
    return dataset


def _set_pixels(dataset: Dataset, hu: NDArray[np.int16]) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = hu.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = INTERCEPT_HU, 1, "HU"
    stored = np.clip(hu.astype(np.int32) - INTERCEPT_HU, 0, 4095).astype("<u2")
    dataset.add_new("PixelData", "OW", stored.tobytes())


def _compress_jpeg_2000(path: Path) -> None:
    dataset = dcmread(path)
    stored = np.frombuffer(dataset.PixelData, dtype="<i2" if dataset.PixelRepresentation else "<u2")
    image = stored.reshape(dataset.Rows, dataset.Columns)
    codestream = imagecodecs.jpeg2k_encode(image, level=0, reversible=True, codecformat="j2k")
    dataset.PixelData = encapsulate([codestream])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.save_as(path, enforce_file_format=True)
