"""What a structure set says of itself: its envelope, its names and labels, and whether somebody approved it."""

from collections.abc import Iterator

from appliance.dicom.ct_slice import COPIED_ELEMENTS
from appliance.dicom.findings import Finding, error, note, warning
from appliance.dicom.header import describe
from appliance.dicom.rules.examination import Examination
from appliance.dicom.structure_set import RT_STRUCTURE_SET_STORAGE
from appliance.dicom.uid import is_valid_uid

MAX_LABEL = 16  #: characters of a short string (PS3.5 §6.2)

#: elements that must hold something (Type 1), and elements that must be there, even empty (Type 2)
_TYPE_1 = ("StructureSetLabel", "StructureSetROISequence", "ROIContourSequence", "RTROIObservationsSequence")
_TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "SeriesNumber",
    "OperatorsName",
    "Manufacturer",
    "StructureSetDate",
    "StructureSetTime",
)


def file_meta_agrees(exam: Examination) -> Iterator[Finding]:
    """The envelope names the class and the instance that the data set holds (PS3.10 §7.1)."""
    meta, header = exam.written.meta, exam.written.header
    if meta.ascii("MediaStorageSOPClassUID") != RT_STRUCTURE_SET_STORAGE:
        yield error("file_meta_disagrees", "its envelope names another class of objects; export it again")
    if meta.ascii("MediaStorageSOPInstanceUID") != header.ascii("SOPInstanceUID"):
        yield error("file_meta_disagrees", "its envelope names another instance than it holds; export it again")
    if header.ascii("Modality") != "RTSTRUCT":
        yield error("modality", "its Modality is not RTSTRUCT, so archives sort it wrongly; correct the element")


def names_are_its_own(exam: Examination) -> Iterator[Finding]:
    """Its UIDs are valid and no others' (PS3.5 §9)."""
    header = exam.written.header
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        if not is_valid_uid(header.ascii(keyword)):
            yield error("uid_invalid", f"{describe(keyword)} is missing or no valid UID; export it again")
    instance, series = header.ascii("SOPInstanceUID"), header.ascii("SeriesInstanceUID")
    images = exam.written.series_uids if exam.series is None else (exam.series.series_instance_uid,)
    if series in images:
        yield error("series_shared", "it lies in the series of the images; give it a series of its own")
    if instance == series:
        yield error("uid_invalid", "its instance and its series have one and the same UID; give it UIDs of its own")


def required_elements_are_there(exam: Examination) -> Iterator[Finding]:
    """Elements that the IOD requires (PS3.3 §A.19.3), as far as a reader needs them."""
    header = exam.written.header
    for keyword in _TYPE_1:
        if not header.untouched(keyword):
            yield error("element_missing", f"{describe(keyword)} is missing or empty; it is required")
    for keyword in (keyword for keyword in _TYPE_2 if keyword not in header):
        yield exam.graver("element_missing", f"{describe(keyword)} is missing; it must be there, even if it is empty")
    if exam.written.frame_uids and not header.raw("FrameOfReferenceUID"):
        sentence = f"{describe('FrameOfReferenceUID')} stands in its sequences only; write it at the top as well"
        yield exam.graver("element_missing", sentence)


def label_is_short(exam: Examination) -> Iterator[Finding]:
    """The label fits into its element, which planning systems take for the name of the set."""
    if len(exam.written.header.raw("StructureSetLabel")) > MAX_LABEL:
        sentence = f"its label is longer than {MAX_LABEL} characters, which some planning systems refuse; shorten it"
        yield exam.graver("label_long", sentence)


def approval_is_plain(exam: Examination) -> Iterator[Finding]:
    """Nothing of ours claims that a person approved it; of others it is said what they claim."""
    header = exam.written.header
    status, wanted = header.ascii("ApprovalStatus"), exam.planning_system.approval
    if exam.own:
        fits = "ApprovalStatus" not in header if wanted == "absent" else status == "UNAPPROVED"
        if not fits or "ReviewerName" in header:
            yield error("approval", "it does not say that it is unapproved")
    elif status == "APPROVED":
        yield note("approval", "it says that a person approved it")
    elif status not in ("", "UNAPPROVED"):
        yield warning("approval", f"its approval status is {printable(status)}; ask where it was drawn")


def copies_are_exact(exam: Examination) -> Iterator[Finding]:
    """Patient and study of our own results are those of the images, byte for byte."""
    if not exam.own or exam.series is None:
        return
    source = exam.series.slices[0].header
    for keyword in COPIED_ELEMENTS:
        expected = source[keyword].strip(b" \0")
        if keyword == "StudyID" and not expected:
            continue  # the writer puts one in
        if exam.written.header.raw(keyword) != expected:
            yield error("copy_differs", f"{describe(keyword)} is not that of the images")


def printable(text: str) -> str:
    """Return a text of a file as it can be shown on a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)[:64]
