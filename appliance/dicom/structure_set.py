"""Contours become an RT Structure Set (PS3.3 §A.19): what the planning system gets.

Patient and study are copied byte for byte from the images. Every contour names the one image whose plane holds it.
The set says of itself, in every place where a reader may look, that it is an automatic draft which nobody approved.

Its UIDs are derived from all that its content depends on (the input, the model, the protocol with its regions as they
are written, this release), so the same case always gives the same object, and its bytes depend on nothing else but
`created_at`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from appliance.dicom.ct_series import CtSeries
from appliance.dicom.ct_slice import COPIED_ELEMENTS, EQUIPMENT_ELEMENTS
from appliance.dicom.implicit_vr import Value, data_set, file_of
from appliance.dicom.planning_system import PlanningSystem
from appliance.dicom.result_object import ResultObject
from appliance.dicom.roi import RoiTemplate
from appliance.dicom.roi_elements import (
    LONGEST_TEXT,
    MORPHOLOGICAL_OPERATIONS,
    Algorithm,
    DrawnRoi,
    image_reference,
    roi_contour,
    roi_observation,
    source_grid,
    structure_set_roi,
)
from appliance.dicom.uid import derive_uid, is_valid_uid
from appliance.errors import Reason, ResultRefused

RT_STRUCTURE_SET_STORAGE = "1.2.840.10008.5.1.4.1.1.481.3"
DETACHED_STUDY_MANAGEMENT = "1.2.840.10008.3.1.2.3.1"  #: retired, and still what readers expect
MANUFACTURER = "Delineate"
SERIES_NUMBER = 9000  #: far above what scanners give, so that the draft comes last in lists
WARNING = "Not reviewed by a person; check every contour before use."
#: elements that must be there, even empty (PS3.3 Type 2)
_TYPE_2 = (
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
    "PositionReferenceIndicator",
)
GENERIC = PlanningSystem()
_SHORT_TEXT = re.compile(r"[ -\[\]-~]{1,16}")
_LONG_TEXT = re.compile(r"[ -\[\]-~]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class UsedModel:
    """A model that drew regions of a result.

    Attributes:
        name: of the model package.
        version: of the model package.
        digest: of the model package.
        regions: names of the regions that it drew, as they are written; may be empty for the first model, which drew
            all that no other one names.

    Raises:
        ValueError: a text that is empty, too long for its element, or not plain ASCII.
    """

    name: str
    version: str
    digest: str
    regions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("name", "version", "digest"):
            if not _LONG_TEXT.fullmatch(getattr(self, name)):
                raise ValueError(f"{name} of the model is empty, too long or not plain ASCII")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a structure set comes from.

    Attributes:
        input_digest: digest of the images (`ct_volume.input_digest`).
        models: the models that drew it, in the order of the protocol.
        protocol: name of the protocol.
        label: Structure Set Label, at most 16 characters.
        station_name: the box, at most 16 characters.
        recipe_digest: digest of how the protocol has its regions drawn, derived and written.
        not_found: names of regions that were asked for and not found, as they would be written.
        to_look_at: names of regions that need a careful look.
        warnings: sentences about the images: where they are not quite what the model was made for.
        replaces: SOP Instance UID of the structure set of fewer images whose place it takes; empty for none.

    Raises:
        ValueError: a text that is empty, too long for its element, or not plain ASCII; or no model.
    """

    input_digest: str
    models: tuple[UsedModel, ...]
    protocol: str
    label: str
    appliance_version: str
    station_name: str = "DELINEATE"
    recipe_digest: str = "none"
    not_found: tuple[str, ...] = ()
    to_look_at: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    replaces: str = ""

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("a result is drawn by a model")
        if self.replaces and not is_valid_uid(self.replaces):
            raise ValueError("what is replaced has no valid UID")
        lists = {"models", "not_found", "to_look_at", "warnings", "replaces"}
        for name in (name for name in self.__slots__ if name not in lists):
            pattern = _SHORT_TEXT if name in ("label", "station_name") else _LONG_TEXT
            if not pattern.fullmatch(getattr(self, name)):
                raise ValueError(f"{name} is empty, too long or not plain ASCII")

    def model_of(self, region: str) -> UsedModel:
        """The model that drew a region, by the region's name as it is written."""
        return next((model for model in self.models if region in model.regions), self.models[0])

    def models_in_words(self, between: str) -> str:
        """Names and versions of all models."""
        return between.join(f"{model.name} {model.version}" for model in self.models)


@dataclass(frozen=True, slots=True, kw_only=True)
class StructureSet(ResultObject):
    """A structure set as a DICOM file, in Implicit VR Little Endian.

    Attributes:
        label: its Structure Set Label.
    """

    label: str


def build_structure_set(
    series: CtSeries,
    rois: Sequence[DrawnRoi],
    provenance: Provenance,
    form: PlanningSystem = GENERIC,
    created_at: datetime | None = None,
) -> StructureSet:
    """Write a structure set for a series.

    Args:
        series: the images that were contoured.
        rois: the regions, in the order in which they are listed.
        provenance: what made them.
        form: what the planning system takes.
        created_at: written as date and time of the set and of its regions, in its own time zone; they stay empty or
            absent without it.

    Raises:
        ResultRefused: RESULT_INVALID, a contour has more points than the planning system takes.
        ValueError: two regions share a name (whatever the case) or a number.
    """
    templates = [roi.template for roi in rois]
    check_distinct(templates)
    _check_points(rois, form)
    identity = identity_of(provenance, templates)
    sop_instance_uid = derive_uid("structure set", *identity)
    series_instance_uid = derive_uid("structure set series", *identity)
    date, time = ("", "") if created_at is None else (f"{created_at:%Y%m%d}", f"{created_at:%H%M%S}")
    content = data_set(
        **patient_and_study(series),
        **_series_and_equipment(series, provenance, series_instance_uid),
        **contributing_equipment(series, provenance, data_set),
        **({"ApprovalStatus": "UNAPPROVED"} if form.approval == "unapproved" else {}),
        SOPClassUID=RT_STRUCTURE_SET_STORAGE,
        SOPInstanceUID=sop_instance_uid,
        InstanceNumber=1,
        StructureSetLabel=provenance.label,
        StructureSetName=f"AI draft {provenance.protocol}"[:64],
        StructureSetDescription=description_of(provenance),
        StructureSetDate=date,
        StructureSetTime=time,
        **_predecessor(provenance, sop_instance_uid),
        FrameOfReferenceUID=series.frame_of_reference_uid,
        ReferencedFrameOfReferenceSequence=[_referenced_frame_of_reference(series)],
        **_regions(series, rois, provenance, form, created_at),
    )
    return StructureSet(
        sop_instance_uid=sop_instance_uid,
        series_instance_uid=series_instance_uid,
        label=provenance.label,
        referenced_sop_instance_uids=series.sop_instance_uids,
        content=file_of(RT_STRUCTURE_SET_STORAGE, sop_instance_uid, content),
    )


def _predecessor(provenance: Provenance, sop_instance_uid: str) -> dict[str, Value]:
    """Name the structure set that this one replaces (PS3.3 §C.8.8.5), unless it is this one."""
    if provenance.replaces in {"", sop_instance_uid}:
        return {}
    return {"PredecessorStructureSetSequence": [image_reference(RT_STRUCTURE_SET_STORAGE, provenance.replaces)]}


def _regions(
    series: CtSeries,
    rois: Sequence[DrawnRoi],
    provenance: Provenance,
    form: PlanningSystem,
    created_at: datetime | None,
) -> dict[str, Value]:
    """Write the three lists that make the regions: what, where, and what they stand for."""
    drawn_at = "" if created_at is None else f"{created_at:%Y%m%d%H%M%S%z}"
    derivation, creator = derivation_of(provenance), _creator(provenance)
    drawn = [derivation if roi.recipe else algorithm_of(provenance, roi.template.name) for roi in rois]
    grid = source_grid(series)
    numbers = {roi.template.name: roi.template.number for roi in rois}
    frame = series.frame_of_reference_uid
    return {
        "StructureSetROISequence": [
            structure_set_roi(roi, frame, algorithm, creator, drawn_at)
            for roi, algorithm in zip(rois, drawn, strict=True)
        ],
        "ROIContourSequence": [roi_contour(roi, series, form, grid) for roi in rois],
        "RTROIObservationsSequence": [roi_observation(roi, numbers, form) for roi in rois],
    }


def identity_of(provenance: Provenance, templates: Sequence[RoiTemplate]) -> tuple[str, ...]:
    """All that the content of a result depends on, but for its date and time."""
    return (
        provenance.input_digest,
        *(model.digest for model in provenance.models),
        provenance.protocol,
        provenance.label,
        provenance.station_name,
        provenance.recipe_digest,
        provenance.appliance_version,
        *(template.model_dump_json() for template in templates),
    )


def check_distinct(templates: Sequence[RoiTemplate]) -> None:
    """See that every region can be told apart.

    Raises:
        ValueError: two regions share a name (whatever the case) or a number.
    """
    names = {template.name.casefold() for template in templates}
    numbers = {template.number for template in templates}
    if min(len(names), len(numbers)) < len(templates):
        raise ValueError("two regions share a name or a number")


def _check_points(rois: Sequence[DrawnRoi], form: PlanningSystem) -> None:
    for roi in rois if form.max_points else ():
        most = max((len(contour.points_mm) for contour in roi.contours.contours), default=0)
        if most > (form.max_points or 0):
            raise ResultRefused(
                Reason.RESULT_INVALID,
                f"a contour of {roi.template.name} has {most} points, more than the planning system takes "
                f"({form.max_points}); raise max_points in planning_systems.toml if it takes more",
            )


def description_of(provenance: Provenance) -> str:
    """Say what made a result, that nobody has reviewed it, what to look at, and what is not in it."""
    said = [f"Automatic draft by {provenance.models_in_words(' and ')}. {WARNING}"]
    if provenance.replaces:
        said.append(f"More images came: this replaces structure set {provenance.replaces}.")
    if provenance.to_look_at:
        said.append(f"Look carefully at: {', '.join(provenance.to_look_at)}.")
    if provenance.not_found:
        said.append(f"Asked for and not found: {', '.join(provenance.not_found)}.")
    if provenance.warnings:
        said.append(f"About the scan, so look at all of it: {'; '.join(provenance.warnings)}.")
    return " ".join(said)[:LONGEST_TEXT]


def patient_and_study(series: CtSeries) -> dict[str, Value]:
    """Copy Patient, General Study and Patient Study modules; what is Type 2 is there even if it is empty."""
    source = series.slices[0].header
    copied: dict[str, Value] = {
        keyword: source[keyword] for keyword in COPIED_ELEMENTS if source[keyword] or keyword in _TYPE_2
    }
    copied["StudyInstanceUID"] = series.study_instance_uid
    if not source["StudyID"].strip():
        copied["StudyID"] = series.study_instance_uid[-16:]  # one planning system refuses studies without a Study ID
    return copied


def series_description(provenance: Provenance) -> str:
    """Say what it is where every reader shows it."""
    return f"AI DRAFT {provenance.models_in_words(', ')}"[:52] + " unapproved"


def _series_and_equipment(series: CtSeries, provenance: Provenance, series_instance_uid: str) -> dict[str, Value]:
    """Write RT Series and General Equipment modules (PS3.3 §C.8.8.1, §C.7.5.1)."""
    return {
        "Modality": "RTSTRUCT",
        "SeriesInstanceUID": series_instance_uid,
        "SeriesNumber": SERIES_NUMBER,
        "SeriesDescription": series_description(provenance),
        "OperatorsName": "",
        "Manufacturer": MANUFACTURER,
        "ManufacturerModelName": MANUFACTURER,
        "StationName": provenance.station_name,
        "SoftwareVersions": provenance.appliance_version,
        "InstitutionName": series.slices[0].header["InstitutionName"],
    }


def contributing_equipment(series: CtSeries, provenance: Provenance, encode: Callable[..., bytes]) -> dict[str, Value]:
    """Name the scanner and each model (PS3.3 §C.12.1.1.5); `encode` is the `data_set` of either encoding."""
    items = [encode(**_processing(provenance, model, encode)) for model in provenance.models]
    scanner = {keyword: value for keyword, value in _scanner(series).items() if value.strip()}
    if "Manufacturer" in scanner:
        purpose = encode(CodeValue="109101", CodingSchemeDesignator="DCM", CodeMeaning="Acquisition Equipment")
        items.insert(0, encode(PurposeOfReferenceCodeSequence=[purpose], **scanner))
    return {"ContributingEquipmentSequence": items}


def _processing(provenance: Provenance, model: UsedModel, encode: Callable[..., bytes]) -> dict[str, Value]:
    return {
        "PurposeOfReferenceCodeSequence": [
            encode(CodeValue="109102", CodingSchemeDesignator="DCM", CodeMeaning="Processing Equipment")
        ],
        "Manufacturer": MANUFACTURER,
        "ManufacturerModelName": model.name,
        "SoftwareVersions": model.version,
        "ContributionDescription": (
            f"Model digest {model.digest}; input digest {provenance.input_digest}; "
            f"protocol {provenance.protocol}; appliance {provenance.appliance_version}"
        ),
    }


def _scanner(series: CtSeries) -> dict[str, bytes]:
    source = series.slices[0].header
    return {keyword: source[keyword] for keyword in EQUIPMENT_ELEMENTS}


def algorithm_of(provenance: Provenance, region: str) -> Algorithm:
    """What drew a region that no rule derived, by the region's name as it is written."""
    model = provenance.model_of(region)
    return Algorithm(
        name=model.name,
        version=model.version,
        source=MANUFACTURER,
        parameters=f"model digest {model.digest}; protocol {provenance.protocol}",
    )


def derivation_of(provenance: Provenance) -> Algorithm:
    """How regions are made from others: by the appliance itself."""
    return Algorithm(
        name=f"{MANUFACTURER} derived structures",
        version=provenance.appliance_version,
        source=MANUFACTURER,
        parameters=f"protocol {provenance.protocol}; recipe digest {provenance.recipe_digest}",
        family=MORPHOLOGICAL_OPERATIONS,
    )


def _creator(provenance: Provenance) -> bytes:
    """Name this box as the device that drew (PS3.3 §10.1, Person or Device)."""
    return data_set(
        ObserverType="DEV",
        Manufacturer=MANUFACTURER,
        ManufacturerModelName=MANUFACTURER,
        StationName=provenance.station_name,
        DeviceUID=derive_uid("device", provenance.station_name),
        SoftwareVersions=provenance.appliance_version,
        InstitutionName="",
        InstitutionCodeSequence=[],
    )


def _referenced_frame_of_reference(series: CtSeries) -> bytes:
    """Name the frame of reference, the study, the series and every image of it, in the order of the slices."""
    images = [image_reference(one.sop_class_uid, one.sop_instance_uid) for one in series.slices]
    referenced_series = data_set(SeriesInstanceUID=series.series_instance_uid, ContourImageSequence=images)
    study = data_set(
        ReferencedSOPClassUID=DETACHED_STUDY_MANAGEMENT,
        ReferencedSOPInstanceUID=series.study_instance_uid,
        RTReferencedSeriesSequence=[referenced_series],
    )
    return data_set(FrameOfReferenceUID=series.frame_of_reference_uid, RTReferencedStudySequence=[study])
