"""What a viewer reads from a Segmentation; read here with pydicom alone, judged by code of its own."""

from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import ExplicitVRLittleEndian

from appliance.dicom.ct_series import CtSeries
from appliance.dicom.geometry import SeriesGeometry
from appliance.dicom.roi import InterpretedType, RoiCode, RoiMask, RoiTemplate
from appliance.dicom.segmentation_object import SegmentationObject, SegmentedRoi, build_segmentation
from appliance.dicom.structure_set import Provenance
from appliance.dicom.uid import is_valid_uid
from tests.support.ct_files import ORIENTATIONS, all_slices, make_ct_series, only_slice, read_series
from tests.support.segmentations import NOON, segmentation_of
from tests.support.structure_sets import OTHER_MODEL, PROVENANCE, sample_regions, structure_set_of, template

SHAPE = (3, 12, 15)  # 180 voxels a slice: bits of neighbouring frames share a byte
SMALL = {"slices": 3, "rows": 12, "columns": 15}
POSITIONS = {
    **ORIENTATIONS,
    "HFDL": (0, -1, 0, 1, 0, 0),
    "FFDR": (0, 1, 0, 1, 0, 0),
    "FFDL": (0, -1, 0, -1, 0, 0),
}
STRESS = {
    "long decimals": {
        "origin_mm": (-261.857123, -210.987654, -123.456789),
        "pixel_spacing_mm": (0.9765625001, 1.367187499),
    },
    "oblique": {"orientation": (0.984807753012, 0.173648177667, 0, -0.171010071663, 0.969846310393, 0.173648177667)},
}


def read(written: SegmentationObject) -> FileDataset:
    return dcmread(BytesIO(written.content))


def voxels_by_label(dataset: FileDataset, images: list[FileDataset]) -> dict[str, NDArray[np.bool_]]:
    """Put every frame on the image that lies where it lies."""
    labels = {item.SegmentNumber: item.SegmentLabel for item in dataset.SegmentSequence}
    shape = (len(images), dataset.Rows, dataset.Columns)
    volumes = {label: np.zeros(shape, np.bool_) for label in labels.values()}
    frames = dataset.pixel_array.reshape(-1, *shape[1:])
    places_mm = np.array([image.ImagePositionPatient for image in images], dtype=float)
    for item, frame in zip(dataset.PerFrameFunctionalGroupsSequence, frames, strict=True):
        place_mm = np.array(item.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        distances_mm = np.linalg.norm(places_mm - place_mm, axis=1)
        assert distances_mm.min() < 1e-6
        label = labels[item.SegmentIdentificationSequence[0].ReferencedSegmentNumber]
        volumes[label][np.argmin(distances_mm)] |= frame.astype(np.bool_)
    return volumes


def sources(item: Dataset) -> list[str]:
    return [source.ReferencedSOPInstanceUID for source in item.DerivationImageSequence[0].SourceImageSequence]


@pytest.fixture
def series(tmp_path: Path) -> CtSeries:
    return read_series(make_ct_series(tmp_path, **SMALL))


@pytest.fixture
def sample(series: CtSeries) -> FileDataset:
    return read(segmentation_of(series, sample_regions(SHAPE)))


@pytest.mark.parametrize("geometry", [*({"orientation": one} for one in POSITIONS.values()), *STRESS.values()], ids=str)
def test_an_independent_reader_finds_every_voxel_again(tmp_path: Path, geometry: dict[str, object]) -> None:
    paths = make_ct_series(tmp_path, **SMALL, **geometry)
    images = [dcmread(path) for path in paths]
    dataset = read(segmentation_of(read_series(paths), sample_regions(SHAPE)))
    found = voxels_by_label(dataset, images)
    for name, voxels in sample_regions(SHAPE).items():
        np.testing.assert_array_equal(found[name], voxels, err_msg=name)
    (shared,) = dataset.SharedFunctionalGroupsSequence
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == images[0].ImageOrientationPatient
    assert shared.PixelMeasuresSequence[0].PixelSpacing == images[0].PixelSpacing


def test_every_frame_names_the_one_image_that_lies_where_it_lies(tmp_path: Path) -> None:
    paths = make_ct_series(tmp_path, **SMALL, orientation="FFP")
    places = {image.SOPInstanceUID: image.ImagePositionPatient for image in map(dcmread, paths)}
    dataset = read(segmentation_of(read_series(paths), sample_regions(SHAPE)))
    for item in dataset.PerFrameFunctionalGroupsSequence:
        (source,) = sources(item)
        assert item.PlanePositionSequence[0].ImagePositionPatient == places[source]


def moved(series: CtSeries, steps_mm: list[tuple[float, float, float]]) -> CtSeries:
    """The same images elsewhere, as uneven gaps or a tilted gantry put them."""
    geometry = series.geometry
    positions_mm = geometry.positions_mm[0] + np.cumsum([(0.0, 0.0, 0.0), *steps_mm], axis=0)
    grid = (geometry.row_direction, geometry.column_direction, geometry.pixel_spacing_mm)
    return replace(series, geometry=SeriesGeometry(positions_mm, *grid, geometry.rows, geometry.columns))


def test_uneven_slices_keep_their_places_and_each_its_thickness(series: CtSeries) -> None:
    dataset = read(segmentation_of(moved(series, [(0, 0, 2.0), (0, 0, 5.0)]), {"Bladder": np.ones(SHAPE, np.bool_)}))
    items = dataset.PerFrameFunctionalGroupsSequence
    heights_mm = [float(item.PlanePositionSequence[0].ImagePositionPatient[2]) for item in items]
    assert [round(height_mm - heights_mm[0], 6) for height_mm in heights_mm] == [0, 2, 7]
    assert [item.PixelMeasuresSequence[0].SliceThickness for item in items] == [2, 3.5, 5]
    assert "PixelMeasuresSequence" not in dataset.SharedFunctionalGroupsSequence[0]
    assert not any("SpacingBetweenSlices" in item.PixelMeasuresSequence[0] for item in items)


def test_a_tilted_stack_is_not_straightened(series: CtSeries) -> None:
    dataset = read(segmentation_of(moved(series, [(0, 0.5, 3.0)] * 2), {"Bladder": np.ones(SHAPE, np.bool_)}))
    positions_mm = [
        np.array(item.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        for item in dataset.PerFrameFunctionalGroupsSequence
    ]
    np.testing.assert_allclose(np.diff(positions_mm, axis=0), [[0, 0.5, 3.0]] * 2, atol=1e-6)
    (measures,) = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert measures.SliceThickness == 3
    assert "SpacingBetweenSlices" not in measures


def test_an_even_upright_stack_tells_its_spacing_and_never_claims_to_be_one_volume(sample: FileDataset) -> None:
    (measures,) = sample.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert (measures.SliceThickness, measures.SpacingBetweenSlices) == (3, 3)
    assert "DimensionOrganizationType" not in sample


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
    paths = make_ct_series(tmp_path, **SMALL, charset=charset, patient_name=name)
    result, source = read(segmentation_of(read_series(paths), sample_regions(SHAPE))), dcmread(paths[0])
    assert result.get_item("PatientName").value.rstrip(b" ") == name
    assert result.PatientName == source.PatientName
    assert result.get("SpecificCharacterSet") == source.get("SpecificCharacterSet")


def test_patient_study_and_frame_of_reference_are_those_of_the_images(tmp_path: Path) -> None:
    paths = make_ct_series(tmp_path, **SMALL, mutate=all_slices(PatientAge="075Y", StudyID="", InstitutionName="H"))
    source, result = dcmread(paths[0]), read(segmentation_of(read_series(paths), sample_regions(SHAPE)))
    copied = "PatientID PatientBirthDate PatientSex PatientAge StudyInstanceUID StudyDate StudyTime AccessionNumber "
    for keyword in (copied + "ReferringPhysicianName StudyDescription FrameOfReferenceUID InstitutionName").split():
        assert result[keyword].value == source[keyword].value, keyword
    assert result.StudyID == source.StudyInstanceUID[-16:]


def test_every_image_of_the_series_is_listed_in_order(series: CtSeries, sample: FileDataset) -> None:
    (referenced,) = sample.ReferencedSeriesSequence
    listed = tuple(item.ReferencedSOPInstanceUID for item in referenced.ReferencedInstanceSequence)
    assert referenced.SeriesInstanceUID == series.series_instance_uid
    assert listed == series.sop_instance_uids
    assert segmentation_of(series, sample_regions(SHAPE)).referenced_sop_instance_uids == listed


def test_it_says_everywhere_that_it_is_an_unapproved_automatic_draft(sample: FileDataset) -> None:
    assert sample.SeriesDescription == "AI DRAFT pelvis-demo 1.0.0 unapproved"
    assert sample.ContentLabel == "AI_PELVIS_DRAFT"
    assert "not reviewed" in sample.ContentDescription
    assert {item.SegmentAlgorithmType for item in sample.SegmentSequence} == {"AUTOMATIC"}
    assert {item.SegmentDescription for item in sample.SegmentSequence} == {"Automatic draft, not reviewed"}


def test_the_model_and_the_scanner_are_named_with_version_and_digest(sample: FileDataset) -> None:
    scanner, model = sample.ContributingEquipmentSequence
    assert (scanner.PurposeOfReferenceCodeSequence[0].CodeValue, scanner.Manufacturer) == ("109101", "ACME")
    assert (model.PurposeOfReferenceCodeSequence[0].CodeValue, model.SoftwareVersions) == ("109102", "1.0.0")
    for segment in sample.SegmentSequence:
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert segment.SegmentAlgorithmName == algorithm.AlgorithmName == "pelvis-demo"
        assert algorithm.AlgorithmVersion == "1.0.0"
        assert algorithm.AlgorithmFamilyCodeSequence[0].CodeValue == "123110"
        assert f"model digest {'2' * 64}" in algorithm.AlgorithmParameters
    assert "1" * 64 in model.ContributionDescription


def described(series: CtSeries, recipe: str = "", **changes: object) -> Dataset:
    """The description of a structure that is written as changed."""
    written = RoiTemplate(**{"name": "Kidney_L", "number": 40, "colour": (255, 0, 0), **changes})
    mask = RoiMask.from_volume("Kidney_L", np.ones(SHAPE, np.bool_))
    (segment,) = read(
        build_segmentation(series, [SegmentedRoi(written, mask, recipe)], PROVENANCE, NOON)
    ).SegmentSequence
    return segment


def test_a_structure_keeps_its_name_code_side_and_colour(series: CtSeries) -> None:
    segment = described(series, code=RoiCode(value="64033007", meaning="Kidney"), side="left")
    (kind,) = segment.SegmentedPropertyTypeCodeSequence
    (side,) = kind.SegmentedPropertyTypeModifierCodeSequence
    assert (segment.SegmentNumber, segment.SegmentLabel, segment.TrackingID) == (1, "Kidney_L", "Kidney_L")
    assert (kind.CodeValue, kind.CodingSchemeDesignator, kind.CodeMeaning) == ("64033007", "SCT", "Kidney")
    assert (side.CodeValue, side.CodingSchemeDesignator, side.CodeMeaning) == ("7771000", "SCT", "Left")
    assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "Anatomical Structure"
    lightness, red_green, blue_yellow = segment.RecommendedDisplayCIELabValue  # PS3.3 §C.10.7.1.1
    assert lightness / 65535 * 100 == pytest.approx(53.2, abs=0.5), "pure red, by the tables"
    assert red_green / 65535 * 255 - 128 == pytest.approx(80.1, abs=0.5)
    assert blue_yellow / 65535 * 255 - 128 == pytest.approx(67.2, abs=0.5)


def test_right_is_right(series: CtSeries) -> None:
    (kind,) = described(series, name="Kidney_R", side="right").SegmentedPropertyTypeCodeSequence
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == "24028007"


def test_a_structure_of_no_side_has_no_modifier(series: CtSeries) -> None:
    (kind,) = described(series).SegmentedPropertyTypeCodeSequence
    assert "SegmentedPropertyTypeModifierCodeSequence" not in kind


@pytest.mark.parametrize(
    ("interpreted_type", "category", "kind"),
    [
        ("EXTERNAL", "Anatomical Structure", "Entire body"),
        ("ORGAN", "Anatomical Structure", "Organ At Risk"),
        ("CAVITY", "Anatomical Structure", "Organ At Risk"),
        ("AVOIDANCE", "Spatial and Relational Concept", "Avoidance Volume"),
        ("SUPPORT", "Physical object", "Table"),
        ("FIXATION", "Physical object", "Fixation or Positioning Device"),
        ("GTV", "RT Target", "GTV"),
        ("CTV", "RT Target", "CTV"),
        ("PTV", "RT Target", "PTV"),
        ("DOSE_REGION", "Spatial and Relational Concept", "Radiation Dose Shaping Volume"),
    ],
)
def test_a_structure_without_a_code_is_coded_by_its_type(
    series: CtSeries, interpreted_type: InterpretedType, category: str, kind: str
) -> None:
    segment = described(series, interpreted_type=interpreted_type)
    assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == category
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == kind


def test_a_structure_without_a_snomed_code_is_coded_by_its_place_in_the_anatomy(series: CtSeries) -> None:
    fma = RoiCode(value="7205", scheme="FMA", meaning="Left kidney")
    (kind,) = described(series, fma=fma, side="left").SegmentedPropertyTypeCodeSequence
    assert (kind.CodingSchemeDesignator, kind.CodeValue) == ("FMA", "7205")
    assert "SegmentedPropertyTypeModifierCodeSequence" not in kind, "its name holds the side"


def test_a_derived_structure_says_how_it_was_made_and_that_no_network_drew_it(series: CtSeries) -> None:
    segment = described(series, recipe="Kidney_L grown by 5 mm")
    (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
    assert segment.SegmentDescription == "Automatic draft, not reviewed: Kidney_L grown by 5 mm"
    assert segment.SegmentAlgorithmName == algorithm.AlgorithmName == "Delineate derived structures"
    assert algorithm.AlgorithmFamilyCodeSequence[0].CodeMeaning == "Morphological Operations"


def test_what_was_asked_for_and_not_found_is_named(series: CtSeries) -> None:
    values = {name: getattr(PROVENANCE, name) for name in PROVENANCE.__slots__} | {"not_found": ("Rectum",)}
    result = read(segmentation_of(series, sample_regions(SHAPE), provenance=Provenance(**values)))
    assert "Asked for and not found: Rectum." in result.ImageComments


def test_slices_that_a_structure_does_not_reach_have_no_frame(series: CtSeries) -> None:
    lone = np.zeros(SHAPE, np.bool_)
    lone[1, 11, 14] = True
    written = segmentation_of(series, {"Nothing": np.zeros(SHAPE, np.bool_), "Lone": lone})
    dataset = read(written)
    (item,) = dataset.PerFrameFunctionalGroupsSequence
    assert (written.segments, written.frames, dataset.NumberOfFrames) == (2, 1, 1)
    assert [segment.SegmentLabel for segment in dataset.SegmentSequence] == ["Nothing", "Lone"]
    assert item.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 2
    assert item.FrameContentSequence[0].DimensionIndexValues == [1, 1], "indices count what is there"
    assert np.argwhere(dataset.pixel_array).tolist() == [[11, 14]]


def test_without_a_voxel_there_is_nothing_to_write(series: CtSeries) -> None:
    with pytest.raises(ValueError, match="no region has a voxel"):
        segmentation_of(series, {"Nothing": np.zeros(SHAPE, np.bool_)})


def test_structures_may_overlap_and_the_file_says_so(series: CtSeries) -> None:
    left, right = np.zeros(SHAPE, np.bool_), np.zeros(SHAPE, np.bool_)
    left[:, :, :7], right[:, :, 7:] = True, True
    apart = read(segmentation_of(series, {"Left": left, "Right": right}))
    right[2, 11, 6] = True
    overlapping = read(segmentation_of(series, {"Left": left, "Right": right}))
    assert (apart.SegmentsOverlap, overlapping.SegmentsOverlap) == ("NO", "YES")


def test_the_dimensions_are_segment_and_position_under_one_uid(sample: FileDataset) -> None:
    (organization,) = sample.DimensionOrganizationSequence
    segment, position = sample.DimensionIndexSequence
    assert {one.DimensionOrganizationUID for one in (segment, position)} == {organization.DimensionOrganizationUID}
    assert (segment.DimensionIndexPointer, segment.FunctionalGroupPointer) == (0x0062000B, 0x0062000A)
    assert (position.DimensionIndexPointer, position.FunctionalGroupPointer) == (0x00200032, 0x00209113)
    indices = [tuple(item.FrameContentSequence[0].DimensionIndexValues) for item in _frames(sample)]
    assert indices == sorted(set(indices))
    assert indices[-1] == (6, 3), "six structures with voxels, three slices"


def _frames(dataset: FileDataset) -> list[Dataset]:
    return list(dataset.PerFrameFunctionalGroupsSequence)


def test_the_file_is_explicit_little_endian_with_a_correct_envelope(sample: FileDataset) -> None:
    assert sample.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert sample.file_meta.MediaStorageSOPInstanceUID == sample.SOPInstanceUID
    assert sample.file_meta.MediaStorageSOPClassUID == sample.SOPClassUID
    assert len(sample.PixelData) % 2 == 0
    assert (sample.ContentDate, sample.ContentTime) == ("20260102", "120005")


def test_the_same_case_gives_the_same_bytes_whatever_order_the_slices_came_in(tmp_path: Path) -> None:
    paths = make_ct_series(tmp_path, **SMALL)
    regions = sample_regions(SHAPE)
    one, other = segmentation_of(read_series(paths), regions), segmentation_of(read_series(paths[::-1]), regions)
    assert one.content == other.content
    assert one.digest == other.digest


def test_only_the_date_and_time_of_making_differ_when_it_is_made_again(series: CtSeries) -> None:
    first = segmentation_of(series, sample_regions(SHAPE))
    second = segmentation_of(series, sample_regions(SHAPE), created_at=NOON + timedelta(days=1, seconds=1))
    assert (first.sop_instance_uid, first.series_instance_uid) == (second.sop_instance_uid, second.series_instance_uid)
    differing = {one.keyword for one, other in zip(read(first), read(second), strict=True) if one != other}
    assert differing == {"ContentDate", "ContentTime"}


def test_its_uids_are_its_own(series: CtSeries, sample: FileDataset) -> None:
    structure_set = structure_set_of(series, sample_regions(SHAPE))
    names = {
        sample.SOPInstanceUID,
        sample.SeriesInstanceUID,
        sample.DimensionOrganizationSequence[0].DimensionOrganizationUID,
        *(item.TrackingUID for item in sample.SegmentSequence),
        structure_set.sop_instance_uid,
        structure_set.series_instance_uid,
        series.series_instance_uid,
    }
    assert len(names) == 6 + len(sample.SegmentSequence)
    assert all(is_valid_uid(uid) for uid in names)
    assert sample.SeriesNumber == 9001


@pytest.mark.parametrize("changed", ["input_digest", "models", "protocol", "label", "appliance_version"])
def test_another_input_model_protocol_or_version_gives_another_object(series: CtSeries, changed: str) -> None:
    values: dict[str, Any] = {changed: (OTHER_MODEL,) if changed == "models" else "other"}
    regions = {"Bladder": np.ones(SHAPE, np.bool_)}
    changed_one = replace(PROVENANCE, **values)
    one, other = segmentation_of(series, regions), segmentation_of(series, regions, provenance=changed_one)
    assert len({one.sop_instance_uid, other.sop_instance_uid, one.series_instance_uid, other.series_instance_uid}) == 4


def test_each_segment_names_the_model_that_drew_it(series: CtSeries) -> None:
    provenance = replace(PROVENANCE, models=(*PROVENANCE.models, replace(OTHER_MODEL, regions=("Heart",))))
    regions = {"Bladder": np.ones(SHAPE, np.bool_), "Heart": np.ones(SHAPE, np.bool_)}
    segments = read(segmentation_of(series, regions, provenance=provenance)).SegmentSequence
    assert [item.SegmentAlgorithmName for item in segments] == ["pelvis-demo", "thorax"]


def test_a_structure_of_a_series_is_tracked_under_one_uid_through_all_models(series: CtSeries) -> None:
    values = {name: getattr(PROVENANCE, name) for name in PROVENANCE.__slots__} | {"models": (OTHER_MODEL,)}
    regions = {"Bladder": np.ones(SHAPE, np.bool_), "Rectum": np.ones(SHAPE, np.bool_)}
    results = [segmentation_of(series, regions, provenance=one) for one in (PROVENANCE, Provenance(**values))]
    first, second = ([item.TrackingUID for item in read(result).SegmentSequence] for result in results)
    assert first == second
    assert len(set(first)) == 2


def test_images_that_lost_something_to_compression_say_so_in_what_is_derived_from_them(tmp_path: Path) -> None:
    lossy = {"LossyImageCompression": "01", "LossyImageCompressionRatio": "10"}
    series = read_series(make_ct_series(tmp_path, **SMALL, mutate=only_slice(1, **lossy)))
    result = read(segmentation_of(series, sample_regions(SHAPE)))
    assert (result.LossyImageCompression, result.LossyImageCompressionRatio) == ("01", 10)


def test_images_that_lost_nothing_say_so(sample: FileDataset) -> None:
    assert sample.LossyImageCompression == "00"


def test_regions_that_share_a_name_or_a_number_are_a_mistake(series: CtSeries) -> None:
    mask = RoiMask.from_volume("Bladder", np.ones(SHAPE, np.bool_))
    for first, second in ((("Bladder", 1), ("bladder", 2)), (("Bladder", 1), ("Rectum", 1))):
        with pytest.raises(ValueError, match="share"):
            both = [SegmentedRoi(template(*one), mask) for one in (first, second)]
            build_segmentation(series, both, PROVENANCE, NOON)


def test_a_label_of_small_letters_becomes_a_code_string(series: CtSeries) -> None:
    values = {name: getattr(PROVENANCE, name) for name in PROVENANCE.__slots__} | {"label": "Pelvis (draft)"}
    result = read(segmentation_of(series, sample_regions(SHAPE), provenance=Provenance(**values)))
    assert result.ContentLabel == "PELVIS _DRAFT_"
