"""The judge of contours is judged here, by a slow and simple rule for one point at a time."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage

from tests.support.contour_judge import (
    WrittenContour,
    fill_plane,
    judge_region,
    read_contours,
    sample_outlines_mm,
)
from tests.support.ct_files import set_raw
from tests.support.image_planes import ImagePlane, Points, nearest, read_planes
from tests.support.phantom_series import VARIANTS, PhantomSeries, small

ROWS, COLUMNS, SPACING_MM = 23, 31, (1.5, 0.8)
OBLIQUE = (np.array([0.96, 0.28, 0.0]), np.array([-0.224, 0.768, 0.6]))
SQUARE = [(2.5, 2.5), (8.5, 2.5), (8.5, 8.5), (2.5, 8.5)]


def plane_at(height_mm: float, directions: Sequence[Points] = (np.eye(3)[0], np.eye(3)[1])) -> ImagePlane:
    normal = np.cross(*directions)
    return ImagePlane(
        f"1.2.{height_mm:g}", np.array([-7.0, 4.0, 90.0]) + height_mm * normal, *directions, SPACING_MM, ROWS, COLUMNS
    )


def outline_on(plane: ImagePlane, pixels: Sequence[tuple[float, float]]) -> Points:
    columns, rows = np.array(pixels).T
    return np.stack(np.broadcast_arrays(*plane.to_patient_mm(columns, rows)), axis=1)


def contour_on(plane: ImagePlane, pixels: Sequence[tuple[float, float]], uid: str | None = None) -> WrittenContour:
    return WrittenContour(outline_on(plane, pixels), uid or plane.uid, 0)


def is_inside(column: int, row: int, polygon: Sequence[tuple[float, float]]) -> bool:
    """Count the edges to the right of one point."""
    right = 0
    for index, (x, y) in enumerate(polygon):
        next_x, next_y = polygon[(index + 1) % len(polygon)]
        if (y > row) != (next_y > row):
            right += column < x + (row - y) * (next_x - x) / (next_y - y)
    return right % 2 == 1


@pytest.mark.parametrize("directions", [(np.eye(3)[0], np.eye(3)[1]), OBLIQUE], ids=["axial", "oblique"])
@pytest.mark.parametrize("seed", range(4))
def test_filling_agrees_with_counting_edges_for_every_single_point(seed: int, directions: Sequence[Points]) -> None:
    random = np.random.default_rng(seed)
    plane = plane_at(3.0, directions)
    polygons = [random.uniform((-4, -4), (COLUMNS + 4, ROWS + 4), (size, 2)).tolist() for size in (3, 7, 20)]
    filled = fill_plane([outline_on(plane, polygon) for polygon in polygons], plane)
    counted = [
        [sum(is_inside(column, row, polygon) for polygon in polygons) % 2 for column in range(COLUMNS)]
        for row in range(ROWS)
    ]
    np.testing.assert_array_equal(filled, np.array(counted, dtype=bool))


def test_points_on_an_edge_belong_to_one_side_only() -> None:
    plane = plane_at(0.0)
    left = outline_on(plane, [(2, 2), (6, 2), (6, 6), (2, 6)])
    right = outline_on(plane, [(6, 2), (9, 2), (9, 6), (6, 6)])
    whole = fill_plane([outline_on(plane, [(2, 2), (9, 2), (9, 6), (2, 6)])], plane)
    np.testing.assert_array_equal(fill_plane([left], plane) ^ fill_plane([right], plane), whole)
    assert whole.sum() == 7 * 4


def test_a_hole_is_a_hole_as_a_contour_of_its_own_and_through_a_keyhole() -> None:
    plane = plane_at(0.0)
    hole = [(4.5, 4.5), (4.5, 6.5), (6.5, 6.5), (6.5, 4.5)]
    nested = fill_plane([outline_on(plane, SQUARE), outline_on(plane, hole)], plane)
    keyhole = fill_plane([outline_on(plane, [*SQUARE, SQUARE[0], *hole, hole[0]])], plane)
    assert nested.sum() == 36 - 4
    np.testing.assert_array_equal(nested, keyhole)


def test_the_nearest_image_counts_and_the_named_one_is_looked_at_besides() -> None:
    planes = [plane_at(0.0), plane_at(3.0)]
    truth = np.zeros((2, ROWS, COLUMNS), dtype=bool)
    truth[1, 3:9, 3:9] = True
    right = judge_region([contour_on(planes[1], SQUARE)], truth, planes)
    assert (right.dice, right.dice_by_uid, right.other_image, right.lost_slices) == (1.0, 1.0, 0, 0)
    misnamed = judge_region([contour_on(planes[1], SQUARE, planes[0].uid)], truth, planes)
    assert (misnamed.dice, misnamed.dice_by_uid, misnamed.other_image) == (1.0, 0.0, 1)
    stranger = judge_region([contour_on(planes[1], SQUARE, "1.2.99")], truth, planes)
    assert (stranger.dice, stranger.dice_by_uid, stranger.other_image, stranger.unnamed) == (1.0, 0.0, 1, 0)
    nameless = judge_region([WrittenContour(outline_on(planes[1], SQUARE), None, 0)], truth, planes)
    assert (nameless.dice, nameless.dice_by_uid, nameless.other_image, nameless.unnamed) == (1.0, 1.0, 0, 1)
    misplaced = judge_region([contour_on(planes[0], SQUARE, planes[1].uid)], truth, planes)
    assert (misplaced.dice, misplaced.dice_by_uid, misplaced.lost_slices) == (0.0, 1.0, 1)


def test_volume_and_distance_from_the_image_are_measured() -> None:
    planes = [plane_at(0.0), plane_at(3.0)]
    truth = np.zeros((2, ROWS, COLUMNS), dtype=bool)
    truth[0, 3:9, 3:9] = True
    half = WrittenContour(outline_on(plane_at(0.4), [(2.5, 2.5), (5.5, 2.5), (5.5, 8.5), (2.5, 8.5)]), planes[0].uid, 0)
    verdict = judge_region([half], truth, planes)
    assert verdict.volume_error == -0.5
    assert verdict.dice == pytest.approx(2 * 18 / (18 + 36))
    assert verdict.off_plane_mm == pytest.approx(0.4)


def test_nothing_drawn_where_nothing_is_agrees() -> None:
    planes = [plane_at(0.0), plane_at(3.0)]
    truth = np.zeros((2, ROWS, COLUMNS), dtype=bool)
    assert judge_region([], truth, planes).dice == 1.0
    truth[0, 3, 3] = True
    verdict = judge_region([], truth, planes)
    assert (verdict.dice, verdict.volume_error, verdict.lost_slices) == (0.0, -1.0, 1)


def test_what_a_file_writes_is_counted_as_it_stands() -> None:
    written = b"0.0\\0.0\\1.0\\12345.6789012345\\0.0\\1.0\\3.00000000000000001\\4.0\\1.0 "
    (contours,) = read_contours(_written_and_read(_structure_set([written, b"0.0\\0.0\\1.0\\5.0\\5.0\\1.0"]))).values()
    verdict = judge_region(contours, np.zeros((1, ROWS, COLUMNS), dtype=bool), [plane_at(0.0)])
    assert (verdict.contours, verdict.points, verdict.short_contours, verdict.long_decimals) == (2, 5, 1, 1)
    assert contours[0].image_uid == "1.2.0"
    np.testing.assert_allclose(contours[0].points_mm, [[0, 0, 1], [12345.6789012345, 0, 1], [3, 4, 1]])


def test_contours_that_were_looked_at_before_are_read_as_well() -> None:
    structure_set = _written_and_read(_structure_set([b"0.0\\0.0\\1.0\\5.0\\0.0\\1.0\\5.0\\5.0\\1.0 "]))
    assert structure_set.ROIContourSequence[0].ContourSequence[0].ContourData[3] == 5.0
    (contours,) = read_contours(structure_set).values()
    np.testing.assert_array_equal(contours[0].points_mm, [[0, 0, 1], [5, 0, 1], [5, 5, 1]])


def test_samples_are_spread_evenly_along_all_contours() -> None:
    plane = plane_at(0.0)
    contours = [contour_on(plane, SQUARE), contour_on(plane, [(12.5, 2.5), (24.5, 2.5), (24.5, 2.6), (12.5, 2.6)])]
    samples_mm = sample_outlines_mm(contours, every_mm=0.05)
    lengths_mm = [2 * 6 * (1.5 + 0.8), 2 * (12 * 0.8 + 0.1 * 1.5)]
    assert len(samples_mm) == pytest.approx(sum(lengths_mm) / 0.05, abs=1)
    on_first = plane.to_pixels(samples_mm)[0] < 10
    assert on_first.mean() == pytest.approx(lengths_mm[0] / sum(lengths_mm), abs=0.002)
    assert len(sample_outlines_mm([], every_mm=1.0)) == 0


@pytest.mark.parametrize("series", [one for one in VARIANTS if not one.missing], ids=lambda one: one.title)
def test_the_planes_of_every_geometry_are_found_in_order(series: PhantomSeries, tmp_path: Path) -> None:
    series = small(series, every=16)
    planes = read_planes(series.write(tmp_path))
    heights_mm = [plane.height_mm for plane in planes]
    assert heights_mm == sorted(heights_mm)
    assert len(planes) == len(series.heights_mm)
    centres_mm = np.stack([outline_on(plane, [(series.columns / 2, series.rows / 2)])[0] for plane in planes])
    assert nearest(planes, centres_mm).tolist() == list(range(len(planes)))


def _structure_set(contours: list[bytes]) -> Dataset:
    structure_set, roi, region = Dataset(), Dataset(), Dataset()
    roi.ROINumber, roi.ROIName = 1, "Region"
    region.ReferencedROINumber, region.ContourSequence = 1, []
    for numbers in contours:
        contour, image = Dataset(), Dataset()
        image.ReferencedSOPInstanceUID = "1.2.0"
        contour.ContourImageSequence = [image]
        set_raw(contour, "ContourData", numbers)
        region.ContourSequence.append(contour)
    structure_set.StructureSetROISequence, structure_set.ROIContourSequence = [roi], [region]
    return structure_set


def _written_and_read(structure_set: Dataset) -> Dataset:
    structure_set.file_meta = FileMetaDataset()
    structure_set.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    structure_set.file_meta.MediaStorageSOPClassUID = RTStructureSetStorage
    structure_set.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    structure_set.SOPClassUID, structure_set.SOPInstanceUID = RTStructureSetStorage, "1.2.3"
    buffer = BytesIO()
    structure_set.save_as(buffer, enforce_file_format=True)
    return dcmread(BytesIO(buffer.getvalue()))
