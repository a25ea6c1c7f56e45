"""One CT image: its header, read and checked, without its pixels.

`parse_slice` is the door of the pipeline. Behind it there are only finite numbers, valid UIDs and a pixel layout
that can be decoded; whatever does not fit is refused here, with the element's name.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import hypot
from pathlib import Path

from appliance.dicom.geometry import Plane, Vector
from appliance.dicom.header import Header, describe, read_header
from appliance.dicom.pixel_layout import PixelLayout, read_pixel_layout
from appliance.dicom.scan_description import ScanDescription
from appliance.errors import Reason, SliceRefused

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2.1"

MAX_DIRECTION_ERROR = 1e-3  #: how far direction cosines may be from length 1 and from a right angle
MAX_PIXEL_SPACING_MM = 20.0
MAX_COORDINATE_MM = 1e5  #: no table travels 100 m; larger numbers are damage

#: elements that a result copies from its source, byte for byte, so that no character set can hurt a name:
#: Patient, General Study and Patient Study modules (PS3.3 §C.7.1.1, §C.7.2.1, §C.7.2.2) and frame of reference
COPIED_ELEMENTS = (
    "SpecificCharacterSet",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyDescription",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientBirthTime",
    "PatientSex",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "StudyID",
    "PositionReferenceIndicator",
)
#: what made the images; named in the result as its acquisition equipment
EQUIPMENT_ELEMENTS = (
    "Manufacturer",
    "InstitutionName",
    "StationName",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
)
#: whether the images ever lost something to compression; whatever is derived from them has to say so too
LOSSY_ELEMENTS = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
MAX_COPIED_BYTES = 1024  #: the longest of these elements is far shorter


@dataclass(frozen=True, slots=True, kw_only=True)
class CtSlice:
    """One CT image whose header has been checked.

    Attributes:
        path: the file, which also holds the pixels.
        patient_key: digest of patient ID, issuer, name and birth date: equal for one patient, tells nobody who it is.
        instance_number: the number that the scanner gave the image; it says nothing about order.
        position_mm: centre of the first voxel (LPS).
        row_direction: unit vector along which the column index grows.
        column_direction: unit vector along which the row index grows.
        pixel_spacing_mm: distance between rows, distance between columns.
        rescale_slope: HU = stored value x slope + intercept.
        pixels: where and how the pixels are stored.
        description: what else the header says that a model may care about.
        header: the elements that a result copies, raw bytes by keyword; for this room only.
    """

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    frame_of_reference_uid: str
    patient_key: str
    modality: str
    instance_number: int | None
    rows: int
    columns: int
    position_mm: Vector
    row_direction: Vector
    column_direction: Vector
    pixel_spacing_mm: tuple[float, float]
    rescale_slope: float
    rescale_intercept: float
    pixels: PixelLayout
    description: ScanDescription
    header: Mapping[str, bytes] = field(repr=False)

    @property
    def plane(self) -> Plane:
        """The plane of this image."""
        return Plane(self.position_mm, self.row_direction, self.column_direction, self.pixel_spacing_mm)


def parse_slice(path: Path) -> CtSlice:
    """Read and check the header of one CT image.

    Raises:
        SliceRefused: UNREADABLE, SOP_CLASS_NOT_CT, UID_INVALID, ELEMENT_MISSING, ELEMENT_INVALID,
            DECIMAL_NOT_FINITE, PIXELS_TRUNCATED or PIXELS_UNDECODABLE; nothing else, whatever the file holds.
        OSError: the file itself cannot be read, which says nothing about its content.
    """
    content = path.read_bytes()
    header = read_header(content)
    sop_class_uid = header.uid("SOPClassUID")
    _check_sop_class(sop_class_uid)
    row_direction, column_direction = _read_directions(header)
    slope, intercept = _read_rescale(header)
    return CtSlice(
        path=path,
        sop_class_uid=sop_class_uid,
        sop_instance_uid=_read_sop_instance_uid(header),
        series_instance_uid=header.uid("SeriesInstanceUID"),
        study_instance_uid=header.uid("StudyInstanceUID"),
        frame_of_reference_uid=header.uid("FrameOfReferenceUID"),
        patient_key=_patient_key(header),
        modality=header.text("Modality"),
        instance_number=header.integer("InstanceNumber"),
        rows=header.unsigned("Rows"),
        columns=header.unsigned("Columns"),
        position_mm=_read_vector(header, "ImagePositionPatient", MAX_COORDINATE_MM),
        row_direction=row_direction,
        column_direction=column_direction,
        pixel_spacing_mm=_read_pixel_spacing(header),
        rescale_slope=slope,
        rescale_intercept=intercept,
        pixels=read_pixel_layout(header, len(content)),
        description=ScanDescription(
            kernel=header.text("ConvolutionKernel"),
            body_part=header.text("BodyPartExamined"),
            patient_position=header.text("PatientPosition"),
        ),
        header=_copy_elements(header),
    )


def _check_sop_class(sop_class_uid: str) -> None:
    if sop_class_uid == CT_IMAGE_STORAGE:
        return
    kind = "an Enhanced CT object" if sop_class_uid == ENHANCED_CT_IMAGE_STORAGE else f"of class {sop_class_uid}"
    raise SliceRefused(
        Reason.SOP_CLASS_NOT_CT, f"the object is {kind}; send CT Image Storage objects, one for each slice"
    )


def _read_sop_instance_uid(header: Header) -> str:
    """Return the SOP Instance UID, which the file's own envelope must not contradict (PS3.10 §7.1)."""
    uid = header.uid("SOPInstanceUID")
    envelope = header.meta_text("MediaStorageSOPInstanceUID")
    if envelope not in ("", uid):
        raise SliceRefused(
            Reason.UID_INVALID,
            "the object was sent under another SOP Instance UID than it holds; correct the sender's coercion rules",
        )
    return uid


def _read_vector(header: Header, keyword: str, limit: float) -> Vector:
    x, y, z = header.decimals(keyword, 3)
    if max(abs(x), abs(y), abs(z)) > limit:
        raise _invalid(keyword, f"lies beyond {limit:g}")
    return x, y, z


def _read_directions(header: Header) -> tuple[Vector, Vector]:
    """Return row and column direction as the file gives them, once they are unit vectors at a right angle."""
    keyword = "ImageOrientationPatient"
    a, b, c, d, e, f = header.decimals(keyword, 6)
    row, column = (a, b, c), (d, e, f)
    length_errors = [abs(hypot(*vector) - 1.0) for vector in (row, column)]
    if max(length_errors) > MAX_DIRECTION_ERROR or abs(a * d + b * e + c * f) > MAX_DIRECTION_ERROR:
        raise _invalid(keyword, "holds no two unit vectors at a right angle")
    return row, column


def _read_pixel_spacing(header: Header) -> tuple[float, float]:
    keyword = "PixelSpacing"
    between_rows_mm, between_columns_mm = header.decimals(keyword, 2)
    if not all(0.0 < spacing_mm <= MAX_PIXEL_SPACING_MM for spacing_mm in (between_rows_mm, between_columns_mm)):
        raise _invalid(keyword, f"is not between 0 and {MAX_PIXEL_SPACING_MM:g} mm")
    return between_rows_mm, between_columns_mm


def _read_rescale(header: Header) -> tuple[float, float]:
    """Return slope and intercept that lead to Hounsfield units (PS3.3 §C.8.2.1, §C.11.1.1.2)."""
    slope, intercept = header.decimal("RescaleSlope"), header.decimal("RescaleIntercept")
    if not 0.0 < slope <= MAX_COORDINATE_MM or abs(intercept) > MAX_COORDINATE_MM:
        raise _invalid("RescaleSlope", "or the intercept leads to no Hounsfield units")
    if header.raw("RescaleType") not in (b"", b"HU"):
        raise _invalid("RescaleType", "is not HU, so the values are no Hounsfield units")
    return slope, intercept


def _patient_key(header: Header) -> str:
    """Digest of who the patient is; spaces around a value say nothing (PS3.5 §6.2), upper and lower case do.

    An ID belongs to whoever issued it (PS3.3 §C.7.1.1), so the same ID of another issuer is another patient. Texts
    are compared as they read in the character set of their file.
    """
    keywords = ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate")
    return hashlib.sha256("\0".join(header.text(keyword).strip() for keyword in keywords).encode()).hexdigest()


def _copy_elements(header: Header) -> dict[str, bytes]:
    copied = {}
    for keyword in (*COPIED_ELEMENTS, *EQUIPMENT_ELEMENTS, *LOSSY_ELEMENTS):
        value = header.untouched(keyword)
        if len(value) > MAX_COPIED_BYTES:
            raise _invalid(keyword, f"is longer than {MAX_COPIED_BYTES} bytes")
        copied[keyword] = value
    return copied


def _invalid(keyword: str, why: str) -> SliceRefused:
    return SliceRefused(Reason.ELEMENT_INVALID, f"{describe(keyword)} {why}; check the sender's export")
