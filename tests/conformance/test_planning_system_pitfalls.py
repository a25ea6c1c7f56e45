"""What makes planning systems refuse or misread a structure set: each pitfall once, looked for in our own file.

None of these is a rule that a validator checks; each was met by somebody whose planning system stopped. The numbers are
those of the list in the conformance statement (docs/conformance-statement.md, section 5.3).
"""

from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import ImplicitVRLittleEndian

from appliance.dicom.contours import Drawing, trace
from appliance.dicom.ct_series import CtSeries
from appliance.dicom.planning_system import PlanningSystem
from appliance.dicom.roi import RoiCode, RoiMask
from appliance.dicom.roi_elements import DrawnRoi
from appliance.dicom.structure_set import Provenance, build_structure_set
from appliance.errors import Reason, ResultRefused
from tests.support.contour_judge import distance_from_plane_mm, read_contours
from tests.support.ct_files import all_slices, make_ct_series, read_series
from tests.support.structure_sets import KEYHOLE, PROVENANCE, sample_regions, structure_set_of, template

SHAPE = (3, 24, 30)
SMALL = {"slices": 3, "rows": 24, "columns": 30}


@pytest.fixture
def series(tmp_path: Path) -> CtSeries:
    return read_series(make_ct_series(tmp_path, **SMALL))


@pytest.fixture
def dataset(series: CtSeries) -> FileDataset:
    return read(series)


def read(series: CtSeries, form: PlanningSystem = KEYHOLE) -> FileDataset:
    return dcmread(BytesIO(structure_set_of(series, sample_regions(SHAPE), form=form).content))


def contours_of(dataset: Dataset) -> list[Dataset]:
    return [contour for item in dataset.ROIContourSequence for contour in item.get("ContourSequence", ())]


def test_01_no_coordinate_takes_more_than_16_characters(dataset: FileDataset) -> None:
    assert sum(contour.long_decimals for region in read_contours(dataset).values() for contour in region) == 0


def test_02_contour_data_beyond_64_kilobytes_is_whole(tmp_path: Path) -> None:
    """Explicit VR has no room for it; Implicit VR has."""
    shape = (3, 128, 128)
    series = read_series(make_ct_series(tmp_path, slices=3, rows=128, columns=128))
    y, x = np.mgrid[:128, :128]
    comb = np.broadcast_to((x % 4 == 0) | ((x % 4 == 1) & (y % 2 == 0)) | (y == 0), shape)
    dataset = dcmread(BytesIO(structure_set_of(series, {"Comb": comb}).content))
    assert dataset.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    raw = [contour.get_item("ContourData").value for contour in contours_of(dataset)]
    assert max(map(len, raw)) > 65534
    assert all(len(one.split(b"\\")) % 3 == 0 for one in raw)


def test_03_the_frame_of_reference_of_the_images_stands_in_all_three_places(
    dataset: FileDataset, series: CtSeries
) -> None:
    places = [dataset.FrameOfReferenceUID]
    places += [item.FrameOfReferenceUID for item in dataset.ReferencedFrameOfReferenceSequence]
    places += [item.ReferencedFrameOfReferenceUID for item in dataset.StructureSetROISequence]
    assert set(places) == {series.frame_of_reference_uid}


def test_04_every_contour_names_the_one_image_that_holds_it(dataset: FileDataset, series: CtSeries) -> None:
    classes = {one.sop_instance_uid: one.sop_class_uid for one in series.slices}
    for contour in contours_of(dataset):
        (image,) = contour.ContourImageSequence
        assert classes[image.ReferencedSOPInstanceUID] == image.ReferencedSOPClassUID


@pytest.mark.parametrize("label", ["", "SEVENTEEN_LETTERS", "Schädel"])
def test_05_a_label_that_is_empty_long_or_not_plain_is_impossible(label: str) -> None:
    with pytest.raises(ValueError, match="label"):
        Provenance(**{**{name: getattr(PROVENANCE, name) for name in PROVENANCE.__slots__}, "label": label})


def test_06_names_keep_to_16_characters_without_spaces_at_their_ends(dataset: FileDataset) -> None:
    for item in dataset.StructureSetROISequence:
        assert 0 < len(item.ROIName) <= 16
        assert item.ROIName == item.ROIName.strip()


@pytest.mark.parametrize(("first", "second"), [(("A", 1), ("a", 2)), (("A", 1), ("B", 1))])
def test_07_two_regions_never_share_a_name_or_a_number(
    series: CtSeries, first: tuple[str, int], second: tuple[str, int]
) -> None:
    empty = trace(RoiMask.from_volume("x", np.zeros(SHAPE, np.bool_)), series.geometry)
    rois = [DrawnRoi(template=template(*one), contours=empty) for one in (first, second)]
    with pytest.raises(ValueError, match="share a name or a number"):
        build_structure_set(series, rois, PROVENANCE)


def test_08_every_region_has_a_type_and_one_alone_is_the_body(dataset: FileDataset) -> None:
    types = Counter(item.RTROIInterpretedType for item in dataset.RTROIObservationsSequence)
    assert types.pop("EXTERNAL") == 1
    assert "" not in types


def test_09_the_three_lists_speak_of_the_same_regions(dataset: FileDataset) -> None:
    numbers = [item.ROINumber for item in dataset.StructureSetROISequence]
    assert [item.ReferencedROINumber for item in dataset.ROIContourSequence] == numbers
    assert [item.ReferencedROINumber for item in dataset.RTROIObservationsSequence] == numbers


def test_10_a_region_without_contours_has_no_contour_sequence(dataset: FileDataset) -> None:
    by_name = {item.ROIName: item.ROINumber for item in dataset.StructureSetROISequence}
    (empty,) = [item for item in dataset.ROIContourSequence if item.ReferencedROINumber == by_name["Nothing"]]
    assert "ContourSequence" not in empty
    assert all(len(item.ContourSequence) > 0 for item in dataset.ROIContourSequence if "ContourSequence" in item)


def test_11_a_lone_voxel_is_a_contour_of_four_points(dataset: FileDataset) -> None:
    assert min(contour.NumberOfContourPoints for contour in contours_of(dataset)) == 4
    assert len(read_contours(dataset)["Lone"]) == 3


@pytest.mark.parametrize(
    ("holes", "count", "kind"),
    [("keyhole", 1, "CLOSED_PLANAR"), ("nested", 2, "CLOSED_PLANAR"), ("xor", 2, "CLOSEDPLANAR_XOR")],
)
def test_12_a_hole_is_written_as_the_planning_system_takes_it(
    series: CtSeries, holes: str, count: int, kind: str
) -> None:
    ring = np.zeros(SHAPE, np.bool_)
    ring[1, 5:15, 5:15] = True
    ring[1, 8:12, 8:12] = False
    form = PlanningSystem.model_validate({"holes": holes})
    contours = contours_of(dcmread(BytesIO(structure_set_of(series, {"Ring": ring}, form=form).content)))
    assert [contour.ContourGeometricType for contour in contours] == [kind] * count


def test_13_a_region_is_as_large_as_its_voxels(series: CtSeries) -> None:
    block = np.zeros(SHAPE, np.bool_)
    block[1, 4:20, 6:24] = True
    dataset = dcmread(BytesIO(structure_set_of(series, {"Block": block}).content))
    (contour,) = contours_of(dataset)
    x, y, _ = np.array(contour.ContourData, float).reshape(-1, 3).T
    area_mm2 = abs(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2
    row_spacing_mm, column_spacing_mm = series.geometry.pixel_spacing_mm
    corners_mm2 = 4 * row_spacing_mm * column_spacing_mm / 8
    assert area_mm2 == pytest.approx(16 * row_spacing_mm * 18 * column_spacing_mm - corners_mm2, rel=1e-3)


def test_15_every_contour_lies_on_the_plane_of_its_image(dataset: FileDataset, series: CtSeries) -> None:
    images = {one.sop_instance_uid: dcmread(one.path) for one in series.slices}
    for contour in contours_of(dataset):
        points_mm = np.array(contour.ContourData, float).reshape(-1, 3)
        image = images[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
        assert distance_from_plane_mm(points_mm, image) < 1e-6


def test_16_a_study_without_an_id_gets_one_and_the_rest_is_that_of_the_images(tmp_path: Path) -> None:
    series = read_series(make_ct_series(tmp_path, **SMALL, mutate=all_slices(StudyID="")))
    dataset = read(series)
    assert dataset.StudyID == series.study_instance_uid[-16:]
    assert (dataset.AccessionNumber, dataset.PatientBirthDate) == ("ACC1", "19500102")
    assert dataset.ReferringPhysicianName == "Referrer^One"


def test_17_a_name_in_any_character_set_is_the_same_name(tmp_path: Path) -> None:
    name = "Müller^Jürgen"
    for charset, encoded in (("ISO_IR 192", name.encode()), ("ISO_IR 100", name.encode("latin-1"))):
        series = read_series(make_ct_series(tmp_path / charset, **SMALL, charset=charset, patient_name=encoded))
        assert str(read(series).PatientName) == name


@pytest.mark.parametrize(
    "keyword",
    [
        "OperatorsName",
        "PositionReferenceIndicator",
        "Manufacturer",
        "SeriesNumber",
        "StructureSetDate",
        "StructureSetTime",
        "StructureSetLabel",
        "AccessionNumber",
        "ReferringPhysicianName",
    ],
)
def test_18_what_must_be_there_is_there_even_if_it_is_empty(dataset: FileDataset, keyword: str) -> None:
    assert keyword in dataset


def test_18_each_region_says_how_it_was_generated_and_who_interpreted_it(dataset: FileDataset) -> None:
    assert {item.ROIGenerationAlgorithm for item in dataset.StructureSetROISequence} == {"AUTOMATIC"}
    assert {str(item.ROIInterpreter) for item in dataset.RTROIObservationsSequence} == {""}


def test_19_nothing_claims_that_a_person_approved_it(series: CtSeries, dataset: FileDataset) -> None:
    assert dataset.ApprovalStatus == "UNAPPROVED"
    assert "ReviewerName" not in dataset
    assert "unapproved" in dataset.SeriesDescription
    assert "Not reviewed" in dataset.StructureSetDescription
    without = read(series, PlanningSystem(approval="absent"))
    assert "ApprovalStatus" not in without
    assert "unapproved" in without.SeriesDescription


def test_20_the_structure_set_is_a_series_of_its_own(dataset: FileDataset, series: CtSeries) -> None:
    assert dataset.SeriesInstanceUID != series.series_instance_uid
    assert dataset.StudyInstanceUID == series.study_instance_uid


def test_21_a_contour_with_more_points_than_the_planning_system_takes_is_refused(series: CtSeries) -> None:
    comb = np.zeros(SHAPE, np.bool_)
    comb[1, :, ::2] = comb[1, 0, :] = True
    form = PlanningSystem(max_points=50)
    with pytest.raises(ResultRefused) as refused:
        structure_set_of(series, {"Comb": comb}, form=form)
    assert refused.value.reason is Reason.RESULT_INVALID
    assert "Comb" in refused.value.sentence


@pytest.mark.parametrize(
    ("codes", "expected"),
    [("SCT", ("71341001", "SCT", "24028007")), ("FMA", ("24474", "FMA", None)), ("none", None)],
)
def test_22_codes_are_of_the_terminology_that_the_planning_system_knows(
    series: CtSeries, codes: str, expected: tuple[str, str, str | None] | None
) -> None:
    femur = template("Femur_R", 6).model_copy(
        update={
            "code": RoiCode(value="71341001", meaning="Femur"),
            "fma": RoiCode(value="24474", scheme="FMA", meaning="Right femur"),
            "side": "right",
        }
    )
    contours = trace(RoiMask.from_volume("Femur_R", np.ones(SHAPE, np.bool_)), series.geometry, Drawing())
    form = PlanningSystem.model_validate({"codes": codes})
    content = build_structure_set(series, [DrawnRoi(template=femur, contours=contours)], PROVENANCE, form).content
    (observation,) = dcmread(BytesIO(content)).RTROIObservationsSequence
    if expected is None:
        assert "RTROIIdentificationCodeSequence" not in observation
        return
    (code,) = observation.RTROIIdentificationCodeSequence
    modifiers = code.get("SegmentedPropertyTypeModifierCodeSequence", ())
    side = modifiers[0].CodeValue if modifiers else None
    assert (code.CodeValue, code.CodingSchemeDesignator, side) == expected


def test_23_the_first_point_is_not_repeated(dataset: FileDataset) -> None:
    for contour in contours_of(dataset):
        points_mm = np.array(contour.ContourData, float).reshape(-1, 3)
        assert not np.array_equal(points_mm[0], points_mm[-1])


def test_24_the_volume_of_the_voxels_is_stated(dataset: FileDataset, series: CtSeries) -> None:
    row_spacing_mm, column_spacing_mm = series.geometry.pixel_spacing_mm
    voxel_cm3 = 3.0 * row_spacing_mm * column_spacing_mm / 1000
    volumes = {item.ROIName: float(item.ROIVolume) for item in dataset.StructureSetROISequence}
    for name, voxels in sample_regions(SHAPE).items():
        assert volumes[name] == pytest.approx(voxels.sum() * voxel_cm3, abs=6e-4)


def test_what_was_not_found_and_what_was_derived_is_said_in_the_file(series: CtSeries) -> None:
    contours = trace(RoiMask.from_volume("A", np.ones(SHAPE, np.bool_)), series.geometry)
    rois = [
        DrawnRoi(template=template("Bladder", 2), contours=contours),
        DrawnRoi(
            template=template("Bladder_PRV05", 3),
            contours=contours,
            made_from=("Bladder", "Absent"),
            recipe="Bladder grown by 5 mm",
        ),
    ]
    provenance = Provenance(
        **{**{name: getattr(PROVENANCE, name) for name in PROVENANCE.__slots__}, "not_found": ("Rectum",)}
    )
    dataset = dcmread(BytesIO(build_structure_set(series, rois, provenance).content))
    assert "not found: Rectum" in dataset.StructureSetDescription
    model, derived = (item.ROIDerivationAlgorithmIdentificationSequence[0] for item in dataset.StructureSetROISequence)
    assert model.AlgorithmFamilyCodeSequence[0].CodeMeaning == "Artificial Intelligence"
    assert derived.AlgorithmFamilyCodeSequence[0].CodeMeaning == "Morphological Operations"
    assert "grown by 5 mm" in dataset.StructureSetROISequence[1].ROIDescription
    assert [one.ReferencedROINumber for one in dataset.RTROIObservationsSequence[1].RTRelatedROISequence] == [2]


def test_the_grid_that_the_contours_were_drawn_on_is_described(dataset: FileDataset, series: CtSeries) -> None:
    (grid,) = dataset.ROIContourSequence[0].SourcePixelPlanesCharacteristicsSequence
    assert (grid.NumberOfFrames, grid.Rows, grid.Columns) == SHAPE
    assert tuple(map(float, grid.PixelSpacing)) == series.geometry.pixel_spacing_mm
    np.testing.assert_allclose(np.array(grid.ImagePositionPatient, float), series.geometry.positions_mm[0])
    (source,) = dataset.ROIContourSequence[0].SourceSeriesSequence
    assert source.SeriesInstanceUID == series.series_instance_uid
