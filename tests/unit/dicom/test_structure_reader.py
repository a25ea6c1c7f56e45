"""One reader for every structure set: exact where the file is clear, a named refusal where it is not."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence

from appliance.dicom.ct_series import CtSeries
from appliance.dicom.geometry import SeriesGeometry
from appliance.dicom.planning_system import PlanningSystem
from appliance.dicom.rasterising import fill
from appliance.dicom.structure_reader import read_contours, read_regions
from appliance.errors import Reason, StructureSetRefused
from tests.support.ct_files import all_slices, make_ct_series, read_series
from tests.support.foreign_structure_sets import (
    FORMS,
    Form,
    drawn_structure_set,
    foreign_structure_set,
    saved,
)
from tests.support.structure_sets import sample_regions, structure_set_of

SHAPE = (4, 14, 17)
Mask = NDArray[np.bool_]
POSITIONS = {
    "HFS": (1, 0, 0, 0, 1, 0),
    "HFP": (-1, 0, 0, 0, -1, 0),
    "FFS": (-1, 0, 0, 0, 1, 0),
    "FFP": (1, 0, 0, 0, -1, 0),
    "HFDR": (0, 1, 0, -1, 0, 0),
    "HFDL": (0, -1, 0, 1, 0, 0),
    "FFDR": (0, 1, 0, 1, 0, 0),
    "FFDL": (0, -1, 0, -1, 0, 0),
    "oblique": (0.996194698, 0.087155743, 0.0, -0.086824089, 0.992403877, 0.087155743),
}


def ct(folder: Path, **changes: object) -> tuple[list[Path], CtSeries]:
    paths = make_ct_series(folder, **{"slices": SHAPE[0], "rows": SHAPE[1], "columns": SHAPE[2]} | changes)
    series = read_series(paths)
    return [one.path for one in series.slices], series


@pytest.fixture
def scan(tmp_path: Path) -> tuple[list[Path], CtSeries]:
    return ct(tmp_path)


def few_regions() -> dict[str, Mask]:
    """The hard ones, but for those of hundreds of contours, which take their time to be written."""
    return {name: voxels for name, voxels in sample_regions(SHAPE).items() if name not in {"Chess", "Noise"}}


def square_mm(series: CtSeries, k: int, low: float, high: float, lift_mm: float = 0.0) -> NDArray[np.float64]:
    """Corners of a square between two pixel indices on slice k."""
    corners = [(low, low), (high, low), (high, high), (low, high)]
    return series.geometry.plane(k).to_patient_mm(corners) + lift_mm * np.array(series.geometry.normal)


def test_our_own_files_are_read_voxel_for_voxel_from_bytes_and_from_a_path(
    scan: tuple[list[Path], CtSeries], tmp_path: Path
) -> None:
    regions = sample_regions(SHAPE)
    for holes in ("nested", "keyhole", "xor"):
        content = structure_set_of(scan[1], regions, form=PlanningSystem(holes=holes)).content
        (tmp_path / "set.dcm").write_bytes(content)
        for source in (content, tmp_path / "set.dcm"):
            read = read_regions(source, scan[1])
            assert list(read) == list(regions)
            for name, voxels in regions.items():
                np.testing.assert_array_equal(read[name].in_grid(SHAPE), voxels)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_files_in_the_forms_of_other_programs_are_read_voxel_for_voxel(
    scan: tuple[list[Path], CtSeries], form: Form
) -> None:
    regions = few_regions()
    read = read_regions(foreign_structure_set(*scan, regions, form), scan[1])
    assert sorted(read) == sorted(regions)
    for name, voxels in regions.items():
        np.testing.assert_array_equal(read[name].in_grid(SHAPE), voxels, err_msg=name)


@pytest.mark.parametrize("orientation", POSITIONS.values(), ids=POSITIONS)
@pytest.mark.parametrize("form", [Form(decimals=3), Form(keyhole=True, decimals=3)], ids=["nested", "keyhole"])
def test_every_patient_position_is_read_voxel_for_voxel(
    tmp_path: Path, orientation: tuple[float, ...], form: Form
) -> None:
    paths, series = ct(tmp_path, orientation=orientation)
    regions = few_regions()
    read = read_regions(foreign_structure_set(paths, series, regions, form), series)
    for name, voxels in regions.items():
        np.testing.assert_array_equal(read[name].in_grid(SHAPE), voxels, err_msg=name)


@pytest.mark.parametrize("orientation", POSITIONS.values(), ids=POSITIONS)
def test_contours_through_voxel_centres_take_the_same_side_everywhere(
    tmp_path: Path, orientation: tuple[float, ...]
) -> None:
    paths, series = ct(tmp_path, orientation=orientation)
    drawn = {"Box": [(2, square_mm(series, 2, 3, 9))]}
    expected = np.zeros(SHAPE, np.bool_)
    expected[2, 3:9, 3:9] = True
    read = read_regions(drawn_structure_set(paths, series, drawn, Form(decimals=15)), series)
    np.testing.assert_array_equal(read["Box"].in_grid(SHAPE), expected)


def test_a_hole_in_a_hole_in_a_hole_survives(scan: tuple[list[Path], CtSeries]) -> None:
    squares = [(1, square_mm(scan[1], 1, inset - 0.5, 13.5 - inset)) for inset in (0, 2, 4, 6)]
    (mask,) = read_regions(drawn_structure_set(*scan, {"Ring": squares}), scan[1]).values()
    row = "".join("#" if inside else "." for inside in mask.in_grid(SHAPE)[1, 7])
    assert row == "##..##..##..##..."


@given(
    points=st.lists(st.tuples(st.integers(-40, 400), st.integers(-40, 400)), min_size=3, max_size=12),
    first=st.integers(0, 11),
)
def test_where_a_contour_begins_and_which_way_it_runs_changes_nothing(
    points: list[tuple[int, int]], first: int
) -> None:
    geometry = SeriesGeometry.axial((1, 12, 14), (3.0, 0.9, 1.3), (-185.044, -311.319, -812.0))
    points_mm = geometry.plane(0).to_patient_mm(np.array(points) / 30)
    lengths, slices = np.array([len(points)]), np.array([0])
    once = fill("Test", points_mm, lengths, slices, geometry).in_grid((1, 12, 14))
    for other in (points_mm[::-1], np.roll(points_mm, first, axis=0)):
        np.testing.assert_array_equal(fill("Test", other, lengths, slices, geometry).in_grid((1, 12, 14)), once)


@given(corner=st.tuples(st.integers(90, 240), st.integers(90, 240)))
def test_the_two_passes_of_a_slanted_channel_cancel(corner: tuple[int, int]) -> None:
    geometry = SeriesGeometry.axial((1, 12, 14), (3.0, 0.9, 1.3), (-185.044, -311.319, -812.0))
    outer = [(0.0, 0.0), (11.0, 0.3), (11.0, 10.0), (0.0, 10.0)]
    x, y = corner[0] / 30, corner[1] / 30
    hole = [(x, y), (x, y + 1.4), (x + 1.7, y + 1.1), (x + 1.6, y)]

    def filled(*contours: list[tuple[float, float]]) -> Mask:
        points_mm = geometry.plane(0).to_patient_mm(np.concatenate([np.array(one) for one in contours]))
        lengths = np.array([len(one) for one in contours])
        return fill("Test", points_mm, lengths, np.zeros(len(lengths), np.intp), geometry).in_grid((1, 12, 14))

    keyhole = [*outer, outer[0], *hole, hole[0]]
    np.testing.assert_array_equal(filled(keyhole), filled(outer, hole))


def test_contours_come_with_the_slice_that_they_lie_on_in_ascending_order(scan: tuple[list[Path], CtSeries]) -> None:
    drawn = {"Box": [(k, square_mm(scan[1], k, 2.5, 8.5)) for k in (3, 0, 2)], "Nothing": []}
    read = read_contours(drawn_structure_set(*scan, drawn), scan[1])
    assert [contour.slice_index for contour in read["Box"].contours] == [0, 2, 3]
    assert read["Nothing"].contours == ()
    np.testing.assert_allclose(read["Box"].contours[1].points_mm, square_mm(scan[1], 2, 2.5, 8.5), atol=0.005)


def test_what_bounds_no_volume_is_passed_over(scan: tuple[list[Path], CtSeries]) -> None:
    def change(dataset: FileDataset) -> None:
        contours = dataset.ROIContourSequence[0].ContourSequence
        contours[1].ContourGeometricType = "OPEN_PLANAR"
        contours[2].ContourGeometricType, contours[2].NumberOfContourPoints = "POINT", 1
        contours[2].ContourData = contours[2].ContourData[:3]
        contours[3].NumberOfContourPoints, contours[3].ContourData = 2, contours[3].ContourData[:6]

    drawn = {"Box": [(k, square_mm(scan[1], k, 2.5, 8.5)) for k in range(4)]}
    read = read_regions(drawn_structure_set(*scan, drawn, Form(change=change)), scan[1])
    assert read["Box"].in_grid(SHAPE).any(axis=(1, 2)).tolist() == [True, False, False, False]


@pytest.mark.parametrize(("gap_mm", "lift_mm", "is_read"), [(3.0, 0.45, True), (3.0, 0.55, False), (1.0, 0.25, False)])
def test_a_contour_may_lie_a_little_off_its_plane_but_not_where_it_could_belong_to_the_next(
    tmp_path: Path, gap_mm: float, lift_mm: float, is_read: bool
) -> None:
    paths, series = ct(tmp_path, gap_mm=gap_mm)
    content = drawn_structure_set(paths, series, {"Box": [(1, square_mm(series, 1, 2.5, 8.5, lift_mm))]})
    if is_read:
        assert read_regions(content, series)["Box"].box[0] == slice(1, 2)
        return
    with pytest.raises(StructureSetRefused, match="off the nearest image"):
        read_regions(content, series)


def test_a_file_that_names_wrong_images_is_read_by_coordinates_only_when_asked_to(
    scan: tuple[list[Path], CtSeries],
) -> None:
    content = drawn_structure_set(*scan, {"Box": [(1, square_mm(scan[1], 2, 2.5, 8.5))]})
    with pytest.raises(StructureSetRefused, match="names an image elsewhere") as refusal:
        read_regions(content, scan[1])
    assert refusal.value.reason is Reason.STRUCTURE_SET_UNCLEAR
    assert read_regions(content, scan[1], trust="coordinates")["Box"].box[0] == slice(2, 3)


def test_names_are_told_apart_and_read_in_any_character_set(tmp_path: Path) -> None:
    paths, series = ct(tmp_path, charset=["", "ISO 2022 IR 87"], patient_name=b"Yamada^Tarou")
    content = drawn_structure_set(paths, series, {str(k): [(k, square_mm(series, k, 1.5, 4.5))] for k in range(4)})

    def rename(dataset: FileDataset) -> None:
        names = ("膀胱", "Rectum", "Rectum", "")
        for item, name in zip(dataset.StructureSetROISequence, names, strict=True):
            item.ROIName = name

    dataset = dcmread(BytesIO(content))
    rename(dataset)
    read = read_regions(saved(dataset), series)
    assert list(read) == ["膀胱", "Rectum", "Rectum (2)", "ROI 6"]
    assert [mask.box[0].start for mask in read.values()] == [0, 1, 2, 3]


def first_contour(dataset: FileDataset) -> Dataset:
    return dataset.ROIContourSequence[0].ContourSequence[0]


def listed(dataset: FileDataset) -> Dataset:
    frame = dataset.ReferencedFrameOfReferenceSequence[0]
    return frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]


def state_grid(series: CtSeries, **changes: object) -> Callable[[FileDataset], None]:
    """Say what grid the contours were drawn on: that of the series, but for some changes."""

    def change(dataset: FileDataset) -> None:
        planes = Dataset()
        geometry = series.geometry
        planes.PixelSpacing, planes.SpacingBetweenSlices = list(geometry.pixel_spacing_mm), geometry.slice_gap_mm
        planes.ImageOrientationPatient = [*geometry.row_direction, *geometry.column_direction]
        planes.ImagePositionPatient = geometry.positions_mm[0].tolist()
        planes.NumberOfFrames, planes.Rows, planes.Columns = len(series.slices), geometry.rows, geometry.columns
        for keyword, value in changes.items():
            setattr(planes, keyword, value)
        dataset.ROIContourSequence[0].SourcePixelPlanesCharacteristicsSequence = [planes]

    return change


REFUSALS: dict[str, tuple[Callable[[FileDataset], object], Reason, str]] = {
    "another patient": (
        lambda ds: setattr(ds, "PatientID", "OTHER"),
        Reason.STRUCTURE_SET_MISMATCH,
        "the patient's ID is not that of the images",
    ),
    "another birth date": (
        lambda ds: setattr(ds, "PatientBirthDate", "19990101"),
        Reason.STRUCTURE_SET_MISMATCH,
        "the patient's date of birth is not that of the images",
    ),
    "another study": (
        lambda ds: setattr(ds, "StudyInstanceUID", "1.2.3"),
        Reason.STRUCTURE_SET_MISMATCH,
        "its study is not that of the images",
    ),
    "another series": (
        lambda ds: setattr(listed(ds), "SeriesInstanceUID", "1.2.3"),
        Reason.STRUCTURE_SET_MISMATCH,
        "it refers to another series",
    ),
    "another frame of reference": (
        lambda ds: setattr(ds.StructureSetROISequence[1], "ReferencedFrameOfReferenceUID", "1.2.3"),
        Reason.STRUCTURE_SET_MISMATCH,
        "it names another frame of reference than the images have",
    ),
    "a foreign image": (
        lambda ds: setattr(listed(ds).ContourImageSequence[0], "ReferencedSOPInstanceUID", "1.2.3"),
        Reason.STRUCTURE_SET_MISMATCH,
        "it lists 1 image outside the series",
    ),
    "a foreign image of a contour": (
        lambda ds: setattr(first_contour(ds).ContourImageSequence[0], "ReferencedSOPInstanceUID", "1.2.3"),
        Reason.STRUCTURE_SET_MISMATCH,
        "it has contours on 1 image outside the series",
    ),
    "a number twice": (
        lambda ds: setattr(ds.StructureSetROISequence[1], "ROINumber", 3),
        Reason.STRUCTURE_SET_UNCLEAR,
        "an ROI Number occurs twice",
    ),
    "contours of nobody": (
        lambda ds: setattr(ds.ROIContourSequence[1], "ReferencedROINumber", 99),
        Reason.STRUCTURE_SET_UNCLEAR,
        "there are contours of an ROI Number that no structure has",
    ),
    "no number": (
        lambda ds: delattr(ds.StructureSetROISequence[1], "ROINumber"),
        Reason.STRUCTURE_SET_UNCLEAR,
        "the ROI Number of a structure is missing or no whole number",
    ),
    "no contours at all": (
        lambda ds: setattr(ds, "ROIContourSequence", Sequence()),
        Reason.STRUCTURE_SET_UNCLEAR,
        "it lists no structures, or contours of none",
    ),
    "a contour of no kind": (
        lambda ds: delattr(first_contour(ds), "ContourGeometricType"),
        Reason.STRUCTURE_SET_UNCLEAR,
        "Box has a contour of no known type",
    ),
    "another count": (
        lambda ds: setattr(first_contour(ds), "NumberOfContourPoints", 5),
        Reason.STRUCTURE_SET_UNCLEAR,
        "a contour of Box says that it has 5 points and holds 4",
    ),
    "a coordinate too few": (
        lambda ds: setattr(first_contour(ds), "ContourData", first_contour(ds).ContourData[:-1]),
        Reason.STRUCTURE_SET_UNCLEAR,
        "a contour of Box holds 11 coordinates, which is no multiple of three",
    ),
    "one contour twice": (
        lambda ds: ds.ROIContourSequence[0].ContourSequence.append(first_contour(ds)),
        Reason.STRUCTURE_SET_UNCLEAR,
        "Box has one contour twice",
    ),
    "no points": (
        lambda ds: delattr(first_contour(ds), "ContourData"),
        Reason.STRUCTURE_SET_UNCLEAR,
        "a contour of Box says that it has 4 points and holds 0",
    ),
    "beyond any patient": (
        lambda ds: setattr(first_contour(ds), "ContourData", ["1e6", *first_contour(ds).ContourData[1:]]),
        Reason.STRUCTURE_SET_UNCLEAR,
        "a contour of Box holds a coordinate that is no decimal number within 100 m",
    ),
    "another class": (
        lambda ds: setattr(ds, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.481.5"),
        Reason.STRUCTURE_SET_UNREADABLE,
        "it is no RT Structure Set but of another class",
    ),
}


@pytest.mark.parametrize(("change", "reason", "words"), REFUSALS.values(), ids=REFUSALS)
def test_what_is_not_certain_is_refused_by_name(
    scan: tuple[list[Path], CtSeries], change: Callable[[FileDataset], object], reason: Reason, words: str
) -> None:
    drawn = {name: [(k, square_mm(scan[1], k, 2.5, 8.5)) for k in range(4)] for name in ("Box", "Other")}
    content = drawn_structure_set(*scan, drawn, Form(change=change))
    for trust in ("agreement", "coordinates"):
        with pytest.raises(StructureSetRefused) as refusal:
            read_regions(content, scan[1], trust=trust)
        assert refusal.value.reason is reason
        assert words in refusal.value.sentence
        assert "OTHER" not in refusal.value.sentence


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, True),
        ({"Rows": 15}, False),
        ({"Columns": 99}, False),
        ({"NumberOfFrames": 5}, False),
        ({"PixelSpacing": [0.9, 1.31]}, False),
        ({"SpacingBetweenSlices": 2.5}, False),
        ({"ImageOrientationPatient": [1, 0, 0, 0, -1, 0]}, False),
        ({"ImagePositionPatient": [-185.044, -311.319, -811.0]}, False),
        ({"PixelSpacing": None, "Rows": None}, True),
    ],
)
def test_a_stated_grid_must_be_that_of_the_images(
    scan: tuple[list[Path], CtSeries], changes: dict[str, object], fits: bool
) -> None:
    drawn = {"Box": [(1, square_mm(scan[1], 1, 2.5, 8.5))]}
    content = drawn_structure_set(*scan, drawn, Form(change=state_grid(scan[1], **changes)))
    if fits:
        assert not read_regions(content, scan[1])["Box"].is_empty
        return
    with pytest.raises(StructureSetRefused, match="a grid of voxels that is not that of the images"):
        read_regions(content, scan[1])


@pytest.mark.parametrize("text", [b"nan", b"inf", b"1_0", b"0x1", b"", b"1 2", b"--1", b"1e999", "½".encode()])
def test_what_is_no_decimal_string_is_no_coordinate(scan: tuple[list[Path], CtSeries], text: bytes) -> None:
    content = drawn_structure_set(*scan, {"Box": [(1, square_mm(scan[1], 1, 2.5, 8.5))]})
    at = content.index(b"-181.79")
    damaged = content[:at] + text.ljust(7) + content[at + 7 :]
    with pytest.raises(StructureSetRefused, match=r"no decimal number|coordinates"):
        read_regions(damaged, scan[1])


@pytest.mark.parametrize("content", [b"", b"nothing", bytes(132), bytes(128) + b"DICM", b"\xff" * 4096])
def test_what_was_never_a_structure_set_is_unreadable(scan: tuple[list[Path], CtSeries], content: bytes) -> None:
    for source in (content, scan[0][0]):
        with pytest.raises(StructureSetRefused) as refusal:
            read_regions(source, scan[1])
        assert refusal.value.reason is Reason.STRUCTURE_SET_UNREADABLE


def test_a_set_of_another_patient_with_the_same_numbers_is_refused(tmp_path: Path) -> None:
    paths, series = ct(tmp_path / "one")
    _, other = ct(tmp_path / "other", mutate=all_slices(PatientID="TEST-0002"))
    content = foreign_structure_set(paths, series, sample_regions(SHAPE))
    with pytest.raises(StructureSetRefused, match="not for these images"):
        read_regions(content, other)
