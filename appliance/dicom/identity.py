"""Who a stored DICOM object is: just enough of its header to sort it, count it and show it in a list."""

from dataclasses import dataclass
from pathlib import Path

from appliance.dicom.header import read_header


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceIdentity:
    """The names of one DICOM object of any kind. Texts that the file does not hold are empty.

    Attributes:
        source_ae: title of the application that sent the object, where the file records it.
        called_ae: title under which the object was received, where the file records it.
    """

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    patient_id: str
    modality: str
    body_part: str
    manufacturer: str
    protocol_name: str
    series_description: str
    study_description: str
    accession_number: str
    source_ae: str
    called_ae: str


def read_identity(path: Path) -> InstanceIdentity:
    """Read the identity of a DICOM file.

    Raises:
        SliceRefused: UNREADABLE, ELEMENT_MISSING or UID_INVALID (one of the four UIDs that sort an object).
        OSError: the file itself cannot be read, which says nothing about its content.
    """
    header = read_header(path.read_bytes())
    return InstanceIdentity(
        sop_class_uid=header.uid("SOPClassUID"),
        sop_instance_uid=header.uid("SOPInstanceUID"),
        series_instance_uid=header.uid("SeriesInstanceUID"),
        study_instance_uid=header.uid("StudyInstanceUID"),
        transfer_syntax_uid=header.transfer_syntax_uid,
        patient_id=header.text("PatientID"),
        modality=header.text("Modality"),
        body_part=header.text("BodyPartExamined"),
        manufacturer=header.text("Manufacturer"),
        protocol_name=header.text("ProtocolName"),
        series_description=header.text("SeriesDescription"),
        study_description=header.text("StudyDescription"),
        accession_number=header.text("AccessionNumber"),
        source_ae=header.meta_text("SourceApplicationEntityTitle"),
        called_ae=header.meta_text("ReceivingApplicationEntityTitle"),
    )
