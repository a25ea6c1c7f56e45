"""What a planning system reads from a structure set; read here with pydicom, judged by code of its own."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.uid import ImplicitVRLittleEndian

from appliance.dicom.contours import RoiContours, trace
from appliance.dicom.roi import RoiMask
from appliance.dicom.roi_elements import DrawnRoi
from appliance.dicom.structure_check import check_structure_set
from appliance.dicom.structure_set import Provenance, StructureSet, build_structure_set, identity_of
from appliance.dicom.uid import derive_uid, is_valid_uid
from tests.support.contour_judge import distance_from_plane_mm, fill_structure_set
from tests.support.ct_files import ORIENTATIONS, all_slices, make_ct_series, read_series
from tests.support.structure_sets import (
    KEYHOLE,
    NESTED,
    OTHER_MODEL,
    PROVENANCE,
    sample_regions,
    structure_set_of,
    template,
)

SHAPE = (3, 12, 15)
SMALL = {"slices": 3, "rows": 12, "columns": 15}


def read(structure_set: StructureSet) -> FileDataset:
    return dcmread(BytesIO(structure_set.content))


@pytest.fixture
def sample(tmp_path: Path) -> FileDataset:
    return read(structure_set_of(read_series(make_ct_series(tmp_path, **SMALL)), sample_regions(SHAPE)))


COPIED = (
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientSize",
    "PatientAge",
    "IssuerOfPatientID",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyDescription",
    "FrameOfReferenceUID",
)
STRESS = {
    "as usual": {},
    "feet first, prone": {"orientation": "FFP"},
    "long decimals": {
        "origin_mm": (-261.857123, -210.987654, -123.456789),
        "pixel_spacing_mm": (0.9765625001, 1.367187499),
    },
    "small pixels": {"pixel_spacing_mm": (0.1, 0.12)},
    "oblique": {"orientation": (0.984807753012, 0.173648177667, 0, -0.171010071663, 0.969846310393, 0.173648177667)},
}


@pytest.mark.parametrize("geometry", [*({"orientation": one} for one in ORIENTATIONS), *STRESS.values()], ids=str)
@pytest.mark.parametrize("keyhole", [False, True])
def test_an_independent_reader_finds_every_voxel_again(
    tmp_path: Path, geometry: dict[str, object], keyhole: bool
) -> None:
    paths = make_ct_series(tmp_path, **SMALL, **geometry)
    regions = sample_regions(SHAPE)
    dataset = read(structure_set_of(read_series(paths), regions, form=KEYHOLE if keyhole else NESTED))
    filled = fill_structure_set(dataset, paths)
    for name, voxels in regions.items():
        np.testing.assert_array_equal(filled[name], voxels, err_msg=name)


@pytest.mark.parametrize("geometry", STRESS.values(), ids=STRESS)
def test_every_contour_lies_in_the_plane_of_the_image_that_it_names(
    tmp_path: Path, geometry: dict[str, object]
) -> None:
    paths = make_ct_series(tmp_path, **SMALL, **geometry)
    images = {dataset.SOPInstanceUID: dataset for dataset in map(dcmread, paths)}
    dataset = read(structure_set_of(read_series(paths), sample_regions(SHAPE)))
    for item in dataset.ROIContourSequence:
        for contour in item.get("ContourSequence", ()):
            (reference,) = contour.ContourImageSequence
            points_mm = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
            image = images[reference.ReferencedSOPInstanceUID]
            assert distance_from_plane_mm(points_mm, image) < (0.002 if "orientation" in geometry else 1e-6)


@pytest.mark.parametrize("geometry", STRESS.values(), ids=STRESS)
def test_no_coordinate_is_longer_than_a_decimal_string_may_be(tmp_path: Path, geometry: dict[str, object]) -> None:
    series = read_series(make_ct_series(tmp_path, **SMALL, **geometry))
    for item in read(structure_set_of(series, sample_regions(SHAPE))).ROIContourSequence:
        for contour in item.get("ContourSequence", ()):
            texts = contour.get_item("ContourData").value.strip(b" ").split(b"\\")
            assert all(re.fullmatch(rb"-?\d{1,5}(\.\d{1,6})?", text) and text != b"-0.00" for text in texts)


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "Müller^Jürgen".encode("latin-1")),
        ("ISO_IR 192", "Müller^Jürgen".encode()),
        (["", "ISO 2022 IR 87"], b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"),
        ("GB18030", "Wang^XiaoDong=王^小东".encode("gb18030")),
        (None, b"Plain^Name"),
    ],
)
def test_names_keep_their_bytes_and_their_character_set(
    tmp_path: Path, charset: str | list[str] | None, name: bytes
) -> None:
    path = make_ct_series(tmp_path, **SMALL, charset=charset, patient_name=name)[0]
    result = read(structure_set_of(read_series(tmp_path.iterdir()), {}))
    source = dcmread(path)
    assert name in path.read_bytes()
    assert result.get_item("PatientName").value.rstrip(b" ") == name
    assert result.PatientName == source.PatientName
    assert result.get("SpecificCharacterSet") == source.get("SpecificCharacterSet")


def test_patient_and_study_are_those_of_the_images(tmp_path: Path) -> None:
    changes = all_slices(PatientSize="1.75", PatientAge="075Y", IssuerOfPatientID="HOSPITAL", StudyID="")
    paths = make_ct_series(tmp_path, **SMALL, mutate=changes)
    source, result = dcmread(paths[0]), read(structure_set_of(read_series(paths), {}))
    for keyword in COPIED:
        assert result[keyword].value == source[keyword].value, keyword
    assert result.StudyID == source.StudyInstanceUID[-16:]
    assert "PatientWeight" not in result


def test_the_frame_of_reference_stands_in_all_three_places(sample: FileDataset) -> None:
    uids = {item.ReferencedFrameOfReferenceUID for item in sample.StructureSetROISequence}
    uids |= {item.FrameOfReferenceUID for item in sample.ReferencedFrameOfReferenceSequence}
    assert uids == {sample.FrameOfReferenceUID}


def test_every_image_of_the_series_is_listed_in_order(tmp_path: Path) -> None:
    paths = make_ct_series(tmp_path, **SMALL)
    structure_set = structure_set_of(read_series(paths), {})
    (frame,) = read(structure_set).ReferencedFrameOfReferenceSequence
    (referenced,) = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence
    source = [dcmread(path) for path in paths]
    assert referenced.SeriesInstanceUID == source[0].SeriesInstanceUID
    listed = [item.ReferencedSOPInstanceUID for item in referenced.ContourImageSequence]
    assert listed == [image.SOPInstanceUID for image in source] == list(structure_set.referenced_sop_instance_uids)


def test_the_set_says_everywhere_that_it_is_an_unapproved_automatic_draft(sample: FileDataset) -> None:
    assert sample.ApprovalStatus == "UNAPPROVED"
    assert "ReviewerName" not in sample
    assert sample.StructureSetLabel == "AI_PELVIS_DRAFT"
    assert sample.SeriesDescription == "AI DRAFT pelvis-demo 1.0.0 unapproved"
    assert "Not reviewed" in sample.StructureSetDescription
    assert {item.ROIGenerationAlgorithm for item in sample.StructureSetROISequence} == {"AUTOMATIC"}


def test_what_needs_a_careful_look_is_said_in_every_place_and_changes_no_name(tmp_path: Path) -> None:
    series = read_series(make_ct_series(tmp_path, **SMALL))
    mask = RoiMask.from_volume("Bladder", sample_regions(SHAPE)["Rings"])
    contours, flags = trace(mask, series.geometry), ("the folds agree by 0.71 only", "it touches Rectum")
    rois = [
        DrawnRoi(template=template("Bladder", 1), contours=contours, fold_dice=0.7123, flags=flags),
        DrawnRoi(template=template("Rectum", 2), contours=contours, fold_dice=0.95),
        DrawnRoi(template=template("Bowel", 3), contours=contours, flags=("a long story " * 200,)),
    ]
    warnings = ("slices are 8.00 mm apart", "and so on " * 200)
    provenance = replace(PROVENANCE, to_look_at=("Bladder", "Bowel"), warnings=warnings)
    made = build_structure_set(series, rois, provenance, NESTED)
    dataset = read(made)
    bladder, rectum, bowel = dataset.StructureSetROISequence
    why = "LOOK CAREFULLY: the folds agree by 0.71 only, it touches Rectum"
    assert bladder.ROIDescription == f"Automatic draft, not reviewed; {why}; the networks agree by 0.71"
    assert rectum.ROIDescription == "Automatic draft, not reviewed; the networks agree by 0.95"
    assert [roi.ROIName for roi in dataset.StructureSetROISequence] == ["Bladder", "Rectum", "Bowel"]
    observations = dataset.RTROIObservationsSequence
    assert observations[0].ROIObservationDescription == why
    assert "ROIObservationDescription" not in observations[1]
    assert [one.ROIObservationLabel for one in observations] == ["Bladder", "Rectum", "Bowel"]
    assert "Look carefully at: Bladder, Bowel." in dataset.StructureSetDescription
    assert "slices are 8.00 mm apart" in dataset.StructureSetDescription
    texts = (bowel.ROIDescription, observations[2].ROIObservationDescription, dataset.StructureSetDescription)
    assert max(len(text) for text in texts) == 1024, "no longer than the value representation takes"
    check_structure_set(made.content, series, planning_system=NESTED)


def test_the_model_and_the_scanner_are_named_with_version_and_digest(sample: FileDataset) -> None:
    scanner, model = sample.ContributingEquipmentSequence
    assert scanner.PurposeOfReferenceCodeSequence[0].CodeValue == "109101"
    assert (scanner.Manufacturer, scanner.ManufacturerModelName) == ("ACME", "Sim CT")
    assert model.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert (model.ManufacturerModelName, model.SoftwareVersions) == ("pelvis-demo", "1.0.0")
    assert "2" * 64 in model.ContributionDescription
    assert "1" * 64 in model.ContributionDescription
    algorithm = sample.StructureSetROISequence[0].ROIDerivationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmFamilyCodeSequence[0].CodeValue == "123110"
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("pelvis-demo", "1.0.0")


def test_a_scanner_without_a_name_is_left_out(tmp_path: Path) -> None:
    series = read_series(make_ct_series(tmp_path, **SMALL, mutate=all_slices(Manufacturer="")))
    (model,) = read(structure_set_of(series, {})).ContributingEquipmentSequence
    assert model.ManufacturerModelName == "pelvis-demo"


def test_each_region_has_number_name_colour_type_and_code_in_all_three_lists(sample: FileDataset) -> None:
    lists = zip(
        sample.StructureSetROISequence, sample.ROIContourSequence, sample.RTROIObservationsSequence, strict=True
    )
    for number, (name, (roi, contour, observation)) in enumerate(zip(sample_regions(SHAPE), lists, strict=True), 1):
        assert (roi.ROINumber, roi.ROIName) == (number, name)
        assert contour.ReferencedROINumber == observation.ReferencedROINumber == number
        assert contour.ROIDisplayColor == [255, 10 * number, 0]
        assert observation.RTROIInterpretedType == ("EXTERNAL" if name == "External" else "ORGAN")
        assert observation.RTROIIdentificationCodeSequence[0].CodingSchemeDesignator == "SCT"


def test_an_empty_region_is_declared_without_a_contour_sequence(sample: FileDataset) -> None:
    (empty,) = [item for item in sample.ROIContourSequence if item.ReferencedROINumber == 7]
    assert "ContourSequence" not in empty


def test_the_file_is_implicit_little_endian_with_a_correct_envelope(sample: FileDataset) -> None:
    assert sample.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    assert sample.file_meta.MediaStorageSOPInstanceUID == sample.SOPInstanceUID
    assert sample.file_meta.MediaStorageSOPClassUID == sample.SOPClassUID
    assert is_valid_uid(sample.file_meta.ImplementationClassUID)


def test_the_same_case_gives_the_same_bytes_whatever_order_the_slices_came_in(tmp_path: Path) -> None:
    paths = make_ct_series(tmp_path, **SMALL)
    regions = sample_regions(SHAPE)
    one, other = structure_set_of(read_series(paths), regions), structure_set_of(read_series(paths[::-1]), regions)
    assert one.content == other.content
    assert one.digest == other.digest


def test_the_date_changes_neither_uid(tmp_path: Path) -> None:
    series = read_series(make_ct_series(tmp_path, **SMALL))
    undated = structure_set_of(series, {})
    dated = structure_set_of(series, {}, created_at=datetime(2026, 11, 21, 9, 5, 7, tzinfo=UTC))
    assert (dated.sop_instance_uid, dated.series_instance_uid) == (
        undated.sop_instance_uid,
        undated.series_instance_uid,
    )
    assert (read(dated).StructureSetDate, read(dated).StructureSetTime) == ("20261121", "090507")
    assert (read(undated).StructureSetDate, read(undated).StructureSetTime) == ("", "")


@pytest.mark.parametrize("changed", ["input_digest", "models", "protocol", "label", "appliance_version"])
def test_another_input_model_protocol_or_version_gives_another_object(tmp_path: Path, changed: str) -> None:
    series = read_series(make_ct_series(tmp_path, **SMALL))
    values: dict[str, Any] = {changed: (OTHER_MODEL,) if changed == "models" else "other"}
    one, other = structure_set_of(series, {}), structure_set_of(series, {}, provenance=replace(PROVENANCE, **values))
    assert len({one.sop_instance_uid, other.sop_instance_uid, one.series_instance_uid, other.series_instance_uid}) == 4


def test_a_result_of_one_model_keeps_the_uid_that_earlier_releases_gave_it() -> None:
    identity = identity_of(PROVENANCE, [template("External", 1)])
    assert derive_uid("structure set", *identity) == "2.25.230556932758776269451897631771602364683"


def test_every_model_and_their_order_make_a_result_another_one() -> None:
    first, thorax, legs = PROVENANCE.models[0], OTHER_MODEL, replace(OTHER_MODEL, name="legs", digest="4" * 64)
    sets = [(first,), (first, thorax), (thorax, first), (first, legs), (first, thorax, legs)]
    assert len({identity_of(replace(PROVENANCE, models=models), []) for models in sets}) == len(sets)


def test_each_region_names_the_model_that_drew_it_and_the_set_names_them_all(tmp_path: Path) -> None:
    series = read_series(make_ct_series(tmp_path, **SMALL))
    voxels = np.ones(SHAPE, dtype=np.bool_)
    models = (*PROVENANCE.models, replace(OTHER_MODEL, regions=("Heart",)))
    provenance = replace(PROVENANCE, models=models)
    dataset = read(structure_set_of(series, {"Bladder": voxels, "Heart": voxels}, provenance=provenance))
    algorithms = [item.ROIDerivationAlgorithmIdentificationSequence[0] for item in dataset.StructureSetROISequence]
    assert [(one.AlgorithmName, one.AlgorithmVersion) for one in algorithms] == [
        ("pelvis-demo", "1.0.0"),
        ("thorax", "2.1.0"),
    ]
    assert "3" * 64 in algorithms[1].AlgorithmParameters
    assert dataset.StructureSetDescription.startswith("Automatic draft by pelvis-demo 1.0.0 and thorax 2.1.0. ")
    assert dataset.SeriesDescription == "AI DRAFT pelvis-demo 1.0.0, thorax 2.1.0 unapproved"
    named = [item.ManufacturerModelName for item in dataset.ContributingEquipmentSequence]
    assert named[-2:] == ["pelvis-demo", "thorax"]


def test_a_result_without_a_model_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="drawn by a model"):
        replace(PROVENANCE, models=())
    with pytest.raises(ValueError, match="version of the model is empty"):
        replace(OTHER_MODEL, version="")


def test_regions_under_other_names_or_colours_give_another_object(tmp_path: Path) -> None:
    series = read_series(make_ct_series(tmp_path, **SMALL))
    voxels = np.ones(SHAPE, dtype=np.bool_)
    one, other = (structure_set_of(series, {name: voxels}) for name in ("Bladder", "Rectum"))
    assert one.sop_instance_uid != other.sop_instance_uid


def test_regions_that_share_a_name_or_a_number_are_a_mistake(tmp_path: Path) -> None:
    series = read_series(make_ct_series(tmp_path, **SMALL))
    none = structure_set_of(series, {})
    assert none.content
    for first, second in ((("Bladder", 1), ("bladder", 2)), (("Bladder", 1), ("Rectum", 1))):
        with pytest.raises(ValueError, match="share"):
            build_structure_set(
                series,
                [DrawnRoi(template=template(*one), contours=RoiContours(one[0], ())) for one in (first, second)],
                PROVENANCE,
            )


@pytest.mark.parametrize("label", ["", "SEVENTEEN_LETTERS", "a\\b", "Blase ü"])
def test_a_label_that_cannot_be_written_is_a_mistake(label: str) -> None:
    values = {name: getattr(PROVENANCE, name) for name in PROVENANCE.__slots__} | {"label": label}
    with pytest.raises(ValueError, match="label"):
        Provenance(**values)
