"""A Segmentation that is wrong in any one way does not leave."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset

from appliance.dicom.ct_series import CtSeries
from appliance.dicom.segmentation_check import check_segmentation
from appliance.errors import Reason, ResultRefused
from tests.support.ct_files import make_ct_series, read_series
from tests.support.segmentations import regions_of, segmentation_of
from tests.support.structure_sets import sample_regions

SHAPE = (3, 12, 15)
Change = Callable[[FileDataset], object]
REGIONS = regions_of(sample_regions(SHAPE))


@pytest.fixture
def series(tmp_path: Path) -> CtSeries:
    return read_series(make_ct_series(tmp_path, slices=3, rows=12, columns=15))


@pytest.fixture
def content(series: CtSeries) -> bytes:
    return segmentation_of(series, sample_regions(SHAPE)).content


def changed(content: bytes, change: Change) -> bytes:
    dataset = dcmread(BytesIO(content))
    change(dataset)
    written = BytesIO()
    dataset.save_as(written)
    return written.getvalue()


def frame(dataset: FileDataset, number: int = 0) -> Dataset:
    return dataset.PerFrameFunctionalGroupsSequence[number]


def source(dataset: FileDataset, number: int = 0) -> Dataset:
    return frame(dataset, number).DerivationImageSequence[0].SourceImageSequence[0]


def flip_a_bit(dataset: FileDataset) -> None:
    pixels = bytearray(dataset.PixelData)
    pixels[70] ^= 1
    dataset.PixelData = bytes(pixels)


def swap_images(dataset: FileDataset) -> None:
    source(dataset).ReferencedSOPInstanceUID = source(dataset, 1).ReferencedSOPInstanceUID


def move(dataset: FileDataset) -> None:
    x, y, z = frame(dataset).PlanePositionSequence[0].ImagePositionPatient
    frame(dataset).PlanePositionSequence[0].ImagePositionPatient = [x, y, f"{z + 0.002:.6f}"]


def name_two_images(dataset: FileDataset) -> None:
    frame(dataset).DerivationImageSequence[0].SourceImageSequence.append(source(dataset, 1))


def lose_the_last_frame(dataset: FileDataset) -> None:
    dataset.NumberOfFrames -= 1
    dataset.PerFrameFunctionalGroupsSequence.pop()


def swap_labels(dataset: FileDataset) -> None:
    first, second = dataset.SegmentSequence[:2]
    first.SegmentLabel, second.SegmentLabel = second.SegmentLabel, first.SegmentLabel


def swap_segments(dataset: FileDataset) -> None:
    """Let the frames of the second structure claim to be of the third, and the other way round."""
    for item in dataset.PerFrameFunctionalGroupsSequence:
        identification = item.SegmentIdentificationSequence[0]
        number = identification.ReferencedSegmentNumber
        identification.ReferencedSegmentNumber = {2: 3, 3: 2}.get(number, number)


def shared(dataset: FileDataset) -> Dataset:
    return dataset.SharedFunctionalGroupsSequence[0]


CHANGES: dict[str, tuple[Change, str]] = {
    "patient": (lambda ds: setattr(ds, "PatientID", "OTHER"), "PatientID (0010,0020) is not that of the images"),
    "patient name": (
        lambda ds: setattr(ds, "PatientName", "Other^Name"),
        "PatientName (0010,0010) is not that of the images",
    ),
    "character set": (
        lambda ds: setattr(ds, "SpecificCharacterSet", "ISO_IR 192"),
        "SpecificCharacterSet (0008,0005) is not that of the images",
    ),
    "accession number gone": (
        lambda ds: delattr(ds, "AccessionNumber"),
        "AccessionNumber (0008,0050) is not that of the images",
    ),
    "study": (lambda ds: setattr(ds, "StudyInstanceUID", "1.2.3"), "its study is not that of the images"),
    "modality": (lambda ds: setattr(ds, "Modality", "CT"), "it is no binary Segmentation"),
    "envelope": (
        lambda ds: setattr(ds.file_meta, "MediaStorageSOPInstanceUID", "1.2.3"),
        "its envelope names another instance",
    ),
    "in the images' series": (
        lambda ds: setattr(ds, "SeriesInstanceUID", ds.ReferencedSeriesSequence[0].SeriesInstanceUID),
        "its own UIDs are not valid, or not its own",
    ),
    "no draft": (
        lambda ds: setattr(ds, "SeriesDescription", "AI DRAFT pelvis-demo 1.0.0"),
        "it does not say that it is an unapproved draft",
    ),
    "frame of reference": (
        lambda ds: setattr(ds, "FrameOfReferenceUID", "1.2.3"),
        "its frame of reference is not that of the images",
    ),
    "another series": (
        lambda ds: setattr(ds.ReferencedSeriesSequence[0], "SeriesInstanceUID", "1.2.3"),
        "it refers to another series",
    ),
    "an image not listed": (
        lambda ds: ds.ReferencedSeriesSequence[0].ReferencedInstanceSequence.pop(),
        "the images that it lists are not those of the series",
    ),
    "images in another order": (
        lambda ds: ds.ReferencedSeriesSequence[0].ReferencedInstanceSequence.reverse(),
        "the images that it lists are not those of the series",
    ),
    "labels": (swap_labels, "segment 1 is not called External"),
    "drawn by hand": (
        lambda ds: setattr(ds.SegmentSequence[2], "SegmentAlgorithmType", "MANUAL"),
        "Chess does not say that it was drawn automatically",
    ),
    "code": (
        lambda ds: setattr(ds.SegmentSequence[1].SegmentedPropertyTypeCodeSequence[0], "CodeValue", "34402009"),
        "the code of Rings is not that of the region",
    ),
    "a structure lost": (
        lambda ds: ds.SegmentSequence.pop(),
        "its segments are not as many as the regions, or not numbered from 1",
    ),
    "orientation": (
        lambda ds: setattr(shared(ds).PlaneOrientationSequence[0], "ImageOrientationPatient", [-1, 0, 0, 0, -1, 0]),
        "its orientation is not that of the images",
    ),
    "spacing": (
        lambda ds: setattr(shared(ds).PixelMeasuresSequence[0], "PixelSpacing", [1.3, 0.9]),
        "the pixel spacing of a frame is not that of its image",
    ),
    "rows and columns": (
        lambda ds: (setattr(ds, "Rows", 15), setattr(ds, "Columns", 12)),
        "its frames are not as large as the images",
    ),
    "the wrong image": (swap_images, "a frame does not lie where its image lies"),
    "a foreign image": (
        lambda ds: setattr(source(ds), "ReferencedSOPInstanceUID", "1.2.3"),
        "a frame does not name one image of the input",
    ),
    "two images": (name_two_images, "a frame does not name one image of the input"),
    "off its image": (move, "a frame does not lie where its image lies"),
    "one bit": (flip_a_bit, "frame 4 does not hold the voxels of its region"),
    "structures exchanged": (swap_segments, "frame 4 does not hold the voxels of its region"),
    "a frame lost": (lose_the_last_frame, "a frame is missing, or there twice"),
}


def refusal_of(content: bytes, series: CtSeries) -> str:
    with pytest.raises(ResultRefused) as refusal:
        check_segmentation(content, series, REGIONS)
    assert refusal.value.reason is Reason.RESULT_INVALID
    assert "Phantom" not in refusal.value.sentence, "no sentence tells who the patient is"
    return refusal.value.sentence


@pytest.mark.parametrize(("change", "words"), CHANGES.values(), ids=CHANGES)
def test_anything_wrong_is_refused_by_its_own_rule(
    series: CtSeries, content: bytes, change: Change, words: str
) -> None:
    assert f"was not sent: {words};" in refusal_of(changed(content, change), series)


def test_what_was_written_passes(series: CtSeries, content: bytes) -> None:
    check_segmentation(content, series, REGIONS)


def test_what_is_only_read_and_written_by_others_passes_as_well(series: CtSeries, content: bytes) -> None:
    check_segmentation(changed(content, lambda _: None), series, REGIONS)


def test_a_single_voxel_that_was_not_written_is_noticed(series: CtSeries) -> None:
    masks = sample_regions(SHAPE)
    masks["Lone"][1, 3, 3] = True
    assert "does not hold the voxels of its region" in refusal_of(segmentation_of(series, masks).content, series)


def test_a_slice_that_was_not_written_is_noticed(series: CtSeries) -> None:
    masks = sample_regions(SHAPE)
    masks["Noise"][2] = False
    assert "a frame is missing, or there twice" in refusal_of(segmentation_of(series, masks).content, series)


def test_a_segmentation_of_another_series_is_refused(tmp_path: Path, content: bytes) -> None:
    other = read_series(make_ct_series(tmp_path / "other", slices=3, rows=12, columns=15, series="other"))
    assert "it refers to another series" in refusal_of(content, other)


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_file_that_was_cut_short_is_refused(series: CtSeries, content: bytes, part: float) -> None:
    assert "failed its own check" in refusal_of(content[: int(len(content) * part)], series)


@pytest.mark.parametrize(
    "keyword",
    [
        "SegmentSequence",
        "PerFrameFunctionalGroupsSequence",
        "ReferencedSeriesSequence",
        "PixelData",
        "SeriesDescription",
    ],
)
def test_a_file_without_what_it_must_hold_is_refused(series: CtSeries, content: bytes, keyword: str) -> None:
    without = changed(content, lambda ds: ds.__delitem__(keyword))
    assert "failed its own check" in refusal_of(without, series)


def test_a_region_without_voxels_needs_no_frame(series: CtSeries) -> None:
    masks = {"Nothing": np.zeros(SHAPE, np.bool_), "All": np.ones(SHAPE, np.bool_)}
    check_segmentation(segmentation_of(series, masks).content, series, regions_of(masks))
