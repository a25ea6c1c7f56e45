"""A structure set that is wrong in any one way does not leave."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence

from appliance.dicom.contours import rasterise
from appliance.dicom.ct_series import CtSeries
from appliance.dicom.roi import RoiMask
from appliance.dicom.structure_check import check_structure_set, read_structure_set
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


def move_first_contour(dataset: FileDataset, *, axis: int, by_mm: float) -> None:
    contour = first_contour(dataset)
    points_mm = np.array(contour.ContourData, dtype=float)
    points_mm[axis::3] += by_mm
    contour.ContourData = [f"{coordinate_mm:.2f}" for coordinate_mm in points_mm]


def cut_first_contour(dataset: FileDataset) -> None:
    contour = first_contour(dataset)
    contour.ContourData, contour.NumberOfContourPoints = contour.ContourData[:6], 2


def swap_images(dataset: FileDataset) -> None:
    first_contour(dataset).ContourImageSequence = dataset.ROIContourSequence[0].ContourSequence[1].ContourImageSequence


def number_twice(dataset: FileDataset) -> None:
    dataset.StructureSetROISequence[1].ROINumber = 1
    dataset.ROIContourSequence[1].ReferencedROINumber = 1
    dataset.RTROIObservationsSequence[1].ReferencedROINumber = 1


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
    "accession number gone": (
        lambda ds: delattr(ds, "AccessionNumber"),
        "AccessionNumber (0008,0050) is not that of the images",
    ),
    "character set": (
        lambda ds: setattr(ds, "SpecificCharacterSet", "ISO_IR 192"),
        "SpecificCharacterSet (0008,0005) is not that of the images",
    ),
    "study": (lambda ds: setattr(ds, "StudyInstanceUID", "1.2.3"), "its study is not that of the images"),
    "class": (lambda ds: setattr(ds, "SOPClassUID", "1.2.3"), "it is no RT Structure Set"),
    "modality": (lambda ds: setattr(ds, "Modality", "CT"), "it is no RT Structure Set"),
    "envelope": (
        lambda ds: setattr(ds.file_meta, "MediaStorageSOPInstanceUID", "1.2.3"),
        "its envelope names another instance",
    ),
    "in the images' series": (
        lambda ds: setattr(ds, "SeriesInstanceUID", referenced_series(ds).SeriesInstanceUID),
        "its own UIDs are not valid, or not its own",
    ),
    "approved": (lambda ds: setattr(ds, "ApprovalStatus", "APPROVED"), "it does not say that it is unapproved"),
    "reviewer": (lambda ds: setattr(ds, "ReviewerName", "Nobody"), "it does not say that it is unapproved"),
    "label": (lambda ds: setattr(ds, "StructureSetLabel", ""), "its label is empty or longer than 16 characters"),
    "frame of reference": (
        lambda ds: setattr(ds, "FrameOfReferenceUID", "1.2.3"),
        "its frame of reference is not that of the images",
    ),
    "frame of a region": (
        lambda ds: setattr(ds.StructureSetROISequence[1], "ReferencedFrameOfReferenceUID", "1.2.3"),
        "its frame of reference is not that of the images",
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
        "the images that it lists are not those of the series",
    ),
    "a foreign image contoured": (
        lambda ds: setattr(first_contour(ds).ContourImageSequence[0], "ReferencedSOPInstanceUID", "1.2.3"),
        "External has a contour that does not name one image of the input",
    ),
    "two images contoured": (name_two_images, "External has a contour that does not name one image of the input"),
    "the wrong image contoured": (swap_images, "External has a contour off the plane of its image"),
    "off the plane": (
        lambda ds: move_first_contour(ds, axis=2, by_mm=0.05),
        "External has a contour off the plane of its image",
    ),
    "outside the image": (
        lambda ds: move_first_contour(ds, axis=0, by_mm=0.5),
        "External has a contour that leaves its image",
    ),
    "two points": (
        cut_first_contour,
        "External has a contour of fewer than three points, or one without a finite position",
    ),
    "not as long as it says": (
        lambda ds: setattr(first_contour(ds), "NumberOfContourPoints", 5),
        "External has a contour that is not closed and planar, or not as long as it says",
    ),
    "an open contour": (
        lambda ds: setattr(first_contour(ds), "ContourGeometricType", "OPEN_PLANAR"),
        "External has a contour that is not closed and planar, or not as long as it says",
    ),
    "a region without observation": (
        lambda ds: ds.RTROIObservationsSequence.pop(),
        "its three lists of regions do not agree",
    ),
    "a region without contour item": (
        lambda ds: ds.ROIContourSequence.pop(),
        "its three lists of regions do not agree",
    ),
    "a number twice": (
        lambda ds: setattr(ds.StructureSetROISequence[1], "ROINumber", 1),
        "its three lists of regions do not agree",
    ),
    "a number everywhere twice": (number_twice, "two regions share a name or a number"),
    "a name twice": (
        lambda ds: setattr(ds.StructureSetROISequence[1], "ROIName", "EXTERNAL"),
        "two regions share a name or a number",
    ),
    "a long name": (
        lambda ds: setattr(ds.StructureSetROISequence[1], "ROIName", "SeventeenLetters_"),
        "the name of a region is empty or longer than 16 characters",
    ),
    "two externals": (
        lambda ds: setattr(ds.RTROIObservationsSequence[1], "RTROIInterpretedType", "EXTERNAL"),
        "it has more than one external contour",
    ),
    "drawn by hand": (
        lambda ds: setattr(ds.StructureSetROISequence[1], "ROIGenerationAlgorithm", "MANUAL"),
        "a region does not say that it was drawn automatically",
    ),
    "no regions list": (
        lambda ds: delattr(ds, "StructureSetROISequence"),
        "an element is absent or malformed (AttributeError)",
    ),
    "no images list": (
        lambda ds: setattr(ds, "ReferencedFrameOfReferenceSequence", Sequence()),
        "an element is absent or malformed (ValueError)",
    ),
    "no label element": (
        lambda ds: delattr(ds, "StructureSetLabel"),
        "an element is absent or malformed (AttributeError)",
    ),
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


def test_a_set_is_read_back_from_bytes_and_from_a_file(content: bytes, series: CtSeries, tmp_path: Path) -> None:
    path = tmp_path / "set.dcm"
    path.write_bytes(content)
    for source in (content, path):
        rois = read_structure_set(source)
        for name, voxels in sample_regions(SHAPE).items():
            np.testing.assert_array_equal(rasterise(rois[name], series.geometry).in_grid(SHAPE), voxels)


def test_what_is_no_structure_set_cannot_be_read(tmp_path: Path) -> None:
    ct = make_ct_series(tmp_path, slices=1)[0]
    for source in (b"", b"nothing", ct):
        with pytest.raises(ResultRefused):
            read_structure_set(source)
