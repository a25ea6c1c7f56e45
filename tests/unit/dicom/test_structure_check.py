"""A structure set that is wrong in any one way does not leave."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence

from appliance.dicom.ct_series import CtSeries
from appliance.dicom.planning_system import PlanningSystem
from appliance.dicom.roi import RoiMask
from appliance.dicom.structure_check import check_structure_set
from appliance.errors import Reason, ResultRefused
from tests.support.ct_files import all_slices, make_ct_series, read_series
from tests.support.structure_sets import sample_regions, structure_set_of

SHAPE = (3, 12, 15)
Change = Callable[[FileDataset], object]


@pytest.fixture
def series(tmp_path: Path) -> CtSeries:
    return read_series(make_ct_series(tmp_path, slices=3, rows=12, columns=15))


@pytest.fixture
def content(series: CtSeries) -> bytes:
    return structure_set_of(series, sample_regions(SHAPE)).content


def changed(content: bytes, change: Change) -> bytes:
    dataset = dcmread(BytesIO(content))
    change(dataset)
    written = BytesIO()
    dataset.save_as(written)
    return written.getvalue()


def first_contour(dataset: FileDataset) -> Dataset:
    return dataset.ROIContourSequence[0].ContourSequence[0]


def referenced_series(dataset: FileDataset) -> Dataset:
    frame = dataset.ReferencedFrameOfReferenceSequence[0]
    return frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]


def move_first_contour(dataset: FileDataset, *, axis: int, by_mm: float, decimals: int = 2) -> None:
    contour = first_contour(dataset)
    points_mm = np.array(contour.ContourData, dtype=float)
    points_mm[axis::3] += by_mm
    texts = [f"{coordinate_mm:.2f}" for coordinate_mm in points_mm]
    texts[axis::3] = [f"{coordinate_mm:.{decimals}f}" for coordinate_mm in points_mm[axis::3]]
    contour["ContourData"] = DataElement("ContourData", "OB", "\\".join(texts).encode())


def cut_first_contour(dataset: FileDataset) -> None:
    contour = first_contour(dataset)
    contour.ContourData, contour.NumberOfContourPoints = contour.ContourData[:6], 2


def swap_images(dataset: FileDataset) -> None:
    first_contour(dataset).ContourImageSequence = dataset.ROIContourSequence[0].ContourSequence[1].ContourImageSequence


def number_twice(dataset: FileDataset) -> None:
    dataset.StructureSetROISequence[1].ROINumber = 1
    dataset.ROIContourSequence[1].ReferencedROINumber = 1
    dataset.RTROIObservationsSequence[1].ReferencedROINumber = 1


def relate_to_nothing(dataset: FileDataset) -> None:
    related = Dataset()
    related.ReferencedROINumber, related.RTROIRelationship = 99, "ENCLOSED"
    dataset.RTROIObservationsSequence[1].RTRelatedROISequence = [related]


def name_two_images(dataset: FileDataset) -> None:
    images = [contour.ContourImageSequence[0] for contour in dataset.ROIContourSequence[0].ContourSequence[:2]]
    first_contour(dataset).ContourImageSequence = images


CHANGES: dict[str, tuple[Change, str]] = {
    "patient": (lambda ds: setattr(ds, "PatientID", "OTHER"), "PatientID (0010,0020) is not that of the images"),
    "patient name": (
        lambda ds: setattr(ds, "PatientName", "Other^Name"),
        "PatientName (0010,0010) is not that of the images",
    ),
    "birth date": (
        lambda ds: setattr(ds, "PatientBirthDate", "19500103"),
        "PatientBirthDate (0010,0030) is not that of the images",
    ),
    "accession number gone": (lambda ds: delattr(ds, "AccessionNumber"), "AccessionNumber (0008,0050) is missing"),
    "accession number": (
        lambda ds: setattr(ds, "AccessionNumber", "ACC2"),
        "AccessionNumber (0008,0050) is not that of the images",
    ),
    "character set": (
        lambda ds: setattr(ds, "SpecificCharacterSet", "ISO_IR 192"),
        "SpecificCharacterSet (0008,0005) is not that of the images",
    ),
    "study": (lambda ds: setattr(ds, "StudyInstanceUID", "1.2.3"), "its study is not that of the images"),
    "class": (lambda ds: setattr(ds, "SOPClassUID", "1.2.3"), "it is no RT Structure Set"),
    "modality": (lambda ds: setattr(ds, "Modality", "CT"), "its Modality is not RTSTRUCT"),
    "envelope": (
        lambda ds: setattr(ds.file_meta, "MediaStorageSOPInstanceUID", "1.2.3"),
        "its envelope names another instance",
    ),
    "class in the envelope": (
        lambda ds: setattr(ds.file_meta, "MediaStorageSOPClassUID", "1.2.3"),
        "its envelope names another class",
    ),
    "no instance": (lambda ds: setattr(ds, "SOPInstanceUID", "1.02.3"), "its envelope names another instance"),
    "one UID for all": (
        lambda ds: setattr(ds, "SeriesInstanceUID", ds.SOPInstanceUID),
        "its instance and its series have one and the same UID",
    ),
    "in the images' series": (
        lambda ds: setattr(ds, "SeriesInstanceUID", referenced_series(ds).SeriesInstanceUID),
        "it lies in the series of the images",
    ),
    "approved": (lambda ds: setattr(ds, "ApprovalStatus", "APPROVED"), "it does not say that it is unapproved"),
    "reviewer": (lambda ds: setattr(ds, "ReviewerName", "Nobody"), "it does not say that it is unapproved"),
    "label": (lambda ds: setattr(ds, "StructureSetLabel", ""), "StructureSetLabel (3006,0002) is missing or empty"),
    "long label": (lambda ds: setattr(ds, "StructureSetLabel", "A" * 17), "its label is longer than 16 characters"),
    "frame of reference": (
        lambda ds: setattr(ds, "FrameOfReferenceUID", "1.2.3"),
        "it names another frame of reference than the images have",
    ),
    "frame of a region": (
        lambda ds: setattr(ds.StructureSetROISequence[1], "ReferencedFrameOfReferenceUID", "1.2.3"),
        "it names another frame of reference than the images have",
    ),
    "another series": (
        lambda ds: setattr(referenced_series(ds), "SeriesInstanceUID", "1.2.3"),
        "it refers to another series",
    ),
    "an image not listed": (
        lambda ds: referenced_series(ds).ContourImageSequence.pop(),
        "the images that it lists are not those of the series",
    ),
    "a foreign image listed": (
        lambda ds: setattr(referenced_series(ds).ContourImageSequence[0], "ReferencedSOPInstanceUID", "1.2.3"),
        "it lists 1 image outside the series",
    ),
    "a foreign image contoured": (
        lambda ds: setattr(first_contour(ds).ContourImageSequence[0], "ReferencedSOPInstanceUID", "1.2.3"),
        "it has contours on 1 image outside the series",
    ),
    "no image contoured": (
        lambda ds: delattr(first_contour(ds), "ContourImageSequence"),
        "External: 1 of its contours name no image",
    ),
    "two images contoured": (name_two_images, "External: 1 of its contours name several images"),
    "the wrong image contoured": (swap_images, "External: 1 of its contours name another image than they lie on"),
    "off the plane": (
        lambda ds: move_first_contour(ds, axis=2, by_mm=0.05),
        "External: 1 of its contours lie off the planes of the images, 0.05 mm at z = -812.0 mm",
    ),
    "outside the image": (
        lambda ds: move_first_contour(ds, axis=0, by_mm=0.5),
        "External: it leaves its image, first at z = -812.0 mm",
    ),
    "two points": (cut_first_contour, "External: 1 of its contours have fewer than three points"),
    "not as long as it says": (
        lambda ds: setattr(first_contour(ds), "NumberOfContourPoints", 5),
        "External: its contour 1 says that it has 5 points and holds 8",
    ),
    "an open contour": (
        lambda ds: setattr(first_contour(ds), "ContourGeometricType", "OPEN_PLANAR"),
        "External: 1 of its contours are OPEN_PLANAR and are no part of its volume",
    ),
    "a contour of no kind": (
        lambda ds: setattr(first_contour(ds), "ContourGeometricType", "ROUND"),
        "External: it has a contour of type ROUND",
    ),
    "a region without observation": (
        lambda ds: ds.RTROIObservationsSequence.pop(),
        "RTROIObservationsSequence lacks ROI number 7",
    ),
    "a region without contour item": (
        lambda ds: ds.ROIContourSequence.pop(),
        "ROIContourSequence lacks ROI number 7",
    ),
    "a number twice": (
        lambda ds: setattr(ds.StructureSetROISequence[1], "ROINumber", 1),
        "StructureSetROISequence has ROI number 1 twice",
    ),
    "a number everywhere twice": (number_twice, "StructureSetROISequence has ROI number 1 twice"),
    "contours of nothing": (
        lambda ds: setattr(ds.ROIContourSequence[1], "ReferencedROINumber", 99),
        "ROIContourSequence has ROI number 99, which no structure has",
    ),
    "a name twice": (
        lambda ds: setattr(ds.StructureSetROISequence[1], "ROIName", "EXTERNAL"),
        "External: another structure's name differs in upper and lower case only",
    ),
    "a long name": (
        lambda ds: setattr(ds.StructureSetROISequence[1], "ROIName", "SeventeenLetters_"),
        "SeventeenLetters_: its name is longer than 16 characters",
    ),
    "no name": (lambda ds: setattr(ds.StructureSetROISequence[1], "ROIName", ""), "ROI number 2 has no name"),
    "two externals": (
        lambda ds: setattr(ds.RTROIObservationsSequence[1], "RTROIInterpretedType", "EXTERNAL"),
        "2 structures are of type EXTERNAL (External, Rings)",
    ),
    "drawn by hand": (
        lambda ds: setattr(ds.StructureSetROISequence[1], "ROIGenerationAlgorithm", "MANUAL"),
        "a region does not say that it was drawn automatically",
    ),
    "another volume": (
        lambda ds: setattr(ds.StructureSetROISequence[0], "ROIVolume", "3.2"),
        "External: it says that its volume is 3.2 cm³, its contours hold 1.9 cm³",
    ),
    "derived from nothing": (relate_to_nothing, "Rings: it is related to a structure that is not in the file"),
    "an empty list of contours": (
        lambda ds: setattr(ds.ROIContourSequence[6], "ContourSequence", Sequence()),
        "Nothing: its Contour Sequence has no items",
    ),
    "long decimals": (
        lambda ds: move_first_contour(ds, axis=0, by_mm=0.0, decimals=14),
        "8 coordinates in 1 structure longer than 16 characters",
    ),
    "no regions list": (
        lambda ds: delattr(ds, "StructureSetROISequence"),
        "StructureSetROISequence (3006,0020) is missing or empty",
    ),
    "no images list": (
        lambda ds: setattr(ds, "ReferencedFrameOfReferenceSequence", Sequence()),
        "the images that it lists are not those of the series",
    ),
    "no label element": (
        lambda ds: delattr(ds, "StructureSetLabel"),
        "StructureSetLabel (3006,0002) is missing or empty",
    ),
    "no series number": (lambda ds: delattr(ds, "SeriesNumber"), "SeriesNumber (0020,0011) is missing"),
}


def test_a_correct_set_passes(content: bytes, series: CtSeries) -> None:
    check_structure_set(content, series)
    check_structure_set(changed(content, lambda _: None), series)


def test_a_correct_set_gives_its_masks_back(content: bytes, series: CtSeries) -> None:
    whole = (slice(0, 3), slice(0, 12), slice(0, 15))
    for crop in (RoiMask.from_volume, lambda name, voxels: RoiMask(name, whole, voxels)):
        check_structure_set(content, series, [crop(name, voxels) for name, voxels in sample_regions(SHAPE).items()])


def test_a_study_without_an_id_passes(tmp_path: Path) -> None:
    paths = make_ct_series(tmp_path / "no id", slices=3, rows=12, columns=15, mutate=all_slices(StudyID=""))
    series = read_series(paths)
    check_structure_set(structure_set_of(series, sample_regions(SHAPE)).content, series)


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom says that what we write is wrong
@pytest.mark.parametrize(("change", "sentence"), CHANGES.values(), ids=CHANGES)
def test_anything_wrong_is_refused_by_its_own_rule(
    content: bytes, series: CtSeries, change: Change, sentence: str
) -> None:
    with pytest.raises(ResultRefused) as refusal:
        check_structure_set(changed(content, change), series)
    assert refusal.value.reason is Reason.RESULT_INVALID
    assert sentence in refusal.value.sentence
    assert "OTHER" not in refusal.value.sentence


@pytest.mark.parametrize("z", [0, 2])
def test_a_single_voxel_that_was_not_written_is_noticed(content: bytes, series: CtSeries, z: int) -> None:
    regions = sample_regions(SHAPE)
    regions["Rings"][z, 0, 0] ^= True
    with pytest.raises(ResultRefused, match="Rings does not give its voxels back"):
        check_structure_set(content, series, [RoiMask.from_volume("Rings", regions["Rings"])])


def test_a_region_that_was_not_written_is_noticed(content: bytes, series: CtSeries) -> None:
    with pytest.raises(ResultRefused, match="Bladder is missing"):
        check_structure_set(content, series, [RoiMask.from_volume("Bladder", np.ones(SHAPE, dtype=np.bool_))])


def test_a_set_for_another_series_is_refused(content: bytes, tmp_path: Path) -> None:
    other = read_series(make_ct_series(tmp_path / "other", slices=3, rows=12, columns=15, series="other"))
    with pytest.raises(ResultRefused):
        check_structure_set(content, other)


@pytest.mark.parametrize("keep", [0, 100, 200, 1000, 5000])
def test_a_set_cut_short_is_refused(content: bytes, series: CtSeries, keep: int) -> None:
    with pytest.raises(ResultRefused):
        check_structure_set(content[:keep], series)


def test_a_structure_that_lost_a_slice_is_noticed(series: CtSeries) -> None:
    voxels = np.zeros(SHAPE, dtype=np.bool_)
    voxels[:2, 3:9, 4:10] = True
    content = structure_set_of(series, {"Box": voxels}).content
    voxels[2] = voxels[1]
    with pytest.raises(ResultRefused, match="Box does not give its voxels back"):
        check_structure_set(content, series, [RoiMask.from_volume("Box", voxels)])


def test_the_form_of_a_planning_system_is_what_is_checked(series: CtSeries) -> None:
    form = PlanningSystem(max_name_length=32, approval="absent", holes="xor")
    content = structure_set_of(series, {"A_name_of_20_letters": np.ones(SHAPE, np.bool_)}, form=form).content
    check_structure_set(content, series, planning_system=form)
    with pytest.raises(ResultRefused):
        check_structure_set(content, series)
