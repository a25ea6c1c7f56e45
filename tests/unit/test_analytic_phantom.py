"""The phantom that measures contours must itself be right: its truth, its voxels, and the files that it is put on."""

from math import inf
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from tests.support.analytic_phantom import structures, voxelise
from tests.support.image_planes import ImagePlane, read_planes
from tests.support.implicit_shapes import Shape, ball, block, ellipsoid, tube, turned
from tests.support.phantom_series import BASE, PLAIN, VARIANTS, PhantomSeries, small

SMALL = {series.title: small(series, every=8) for series in VARIANTS}
SHAPES = {
    "ball": ball((1, 2, 3), 10),
    "ellipsoid": ellipsoid((0, 0, 0), (30, 20, 25)),
    "cylinder": ellipsoid((0, 0, 0), (30, 20, inf)) & block((0, 0, 0), (inf, inf, 50)),
    "block": block((4, 0, 0), (7, 0.9, 4)),
    "tube": tube(((0, 0, -40), (5, 3, 0), (0, 0, 40)), 6),
    "turned": turned(ellipsoid((9, 0, 0), (30, 12, 20)), 35),
    "shell": ball((0, 0, 0), 20) - ball((0, 0, 0), 12),
}


def planes_of(series: PhantomSeries, folder: Path) -> list[ImagePlane]:
    return read_planes(series.write(folder))


def test_there_are_27_structures_with_names_that_every_system_can_hold(tmp_path: Path) -> None:
    names = list(structures(planes_of(small(BASE, every=16), tmp_path)))
    assert len(names) == 27
    assert max(map(len, names)) <= 16


@pytest.mark.parametrize("title", SMALL)
def test_evaluating_within_boxes_loses_nothing(title: str, tmp_path: Path) -> None:
    planes = planes_of(SMALL[title], tmp_path)
    for name, shape in structures(planes).items():
        voxels = voxelise(shape, planes)
        rows, columns = np.mgrid[: planes[0].rows, : planes[0].columns]
        inside = [shape.field(*np.broadcast_arrays(*plane.to_patient_mm(columns, rows))) < -1e-6 for plane in planes]
        np.testing.assert_array_equal(voxels.mask(), inside, err_msg=name)


def test_probability_is_one_half_on_the_surface_and_falls_evenly_across_it(tmp_path: Path) -> None:
    planes = planes_of(small(PLAIN, every=2), tmp_path)
    centre_mm, radius_mm = planes[15].to_patient_mm(np.float64(60), np.float64(60)), 40.0
    row = voxelise(ball([float(one) for one in centre_mm], radius_mm), planes).whole()[15, 60]
    step_mm = planes[0].spacing_mm[1]
    outside = int(np.flatnonzero(row > 0.5)[-1]) + 1
    crossing = outside - (0.5 - row[outside]) / (row[outside - 1] - row[outside])
    assert (crossing - 60) * step_mm == pytest.approx(radius_mm, abs=1e-4)
    assert np.all(np.diff(row[60:]) <= 0)
    assert 0 < row[outside] < 0.5 < row[outside - 1] < 1


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_distance_is_true_near_the_surface(shape: Shape) -> None:
    """From a point near the surface, that distance along the gradient leads to the surface."""
    low_mm, high_mm = np.clip([shape.low_mm, shape.high_mm], -60, 60)
    points_mm = np.random.default_rng(0).uniform(low_mm - 1, high_mm + 1, (20000, 3))
    points_mm = points_mm[np.abs(shape.distance_mm(points_mm)) < 0.5]
    slopes = [shape.field(*(points_mm + step).T) - shape.field(*(points_mm - step).T) for step in 1e-4 * np.eye(3)]
    slope = np.array(slopes).T
    on_surface_mm = points_mm - shape.distance_mm(points_mm)[:, np.newaxis] * slope / np.linalg.norm(
        slope, axis=1, keepdims=True
    )
    assert len(points_mm) > 50
    assert np.quantile(np.abs(shape.distance_mm(on_surface_mm)), 0.99) < 0.02  # at edges there is no one gradient


def test_the_regions_are_as_hard_as_they_should_be(tmp_path: Path) -> None:
    planes = planes_of(small(PLAIN, every=2), tmp_path)
    body, couch, tumour, skin = (
        voxelise(structures(planes)[name], planes).mask() for name in ("External", "CouchSurface", "PTV", "Skin")
    )
    assert couch[:, :, 0].any()
    assert couch[:, :, -1].any()
    assert body[:, :, 0].any()
    assert body[:, :, -1].any()
    middle = tumour[len(planes) // 2]
    assert _runs(middle).max() == 3  # ring, island, ring
    assert skin.sum() < 0.15 * body.sum()


def test_single_voxels_are_single_voxels_on_every_geometry(tmp_path: Path) -> None:
    for number, series in enumerate(SMALL.values()):
        planes = planes_of(series, tmp_path / str(number))
        tiny = voxelise(structures(planes)["Tiny"], planes).mask().sum(axis=(1, 2))
        assert tiny[tiny > 0].tolist() == [1, 2, 5], series.title


def test_files_say_what_their_title_says(tmp_path: Path) -> None:
    planes = {title: planes_of(series, tmp_path / title.replace("/", "-")) for title, series in SMALL.items()}
    assert {title: len(ones) for title, ones in planes.items() if len(ones) != 8} == {
        "uneven gaps": 5,
        "2 missing slices": 6,
    }
    tilted = planes["gantry tilt 15 degrees"]
    step_mm = tilted[1].origin_mm - tilted[0].origin_mm
    np.testing.assert_allclose(step_mm / np.linalg.norm(step_mm), [0, 0, 1], atol=1e-6)
    assert np.degrees(np.arccos(tilted[0].normal[2])) == pytest.approx(15)
    uneven = np.diff([plane.height_mm for plane in planes["uneven gaps"]])
    assert uneven.max() > 1.5 * uneven.min()
    assert {tuple(ones[0].normal.round(6)) for title, ones in planes.items() if title.startswith("FF")} == {(0, 0, -1)}


def test_instance_numbers_can_run_backwards_or_be_absent(tmp_path: Path) -> None:
    backwards = SMALL["reversed InstanceNumber"].write(tmp_path / "backwards")
    by_height = sorted(map(dcmread, backwards), key=lambda image: image.ImagePositionPatient[2])
    numbers = [image.InstanceNumber for image in by_height]
    assert numbers == sorted(numbers, reverse=True)
    assert not any("InstanceNumber" in dcmread(path) for path in SMALL["no InstanceNumber"].write(tmp_path / "none"))


def test_long_decimals_are_as_long_as_they_may_be(tmp_path: Path) -> None:
    (path, *_) = SMALL["decimals of 16 characters"].write(tmp_path)
    written = dcmread(path).get_item("PixelSpacing").value.strip()
    assert {len(one) for one in written.split(b"\\")} == {16}


def _runs(sheet: np.ndarray) -> np.ndarray:
    """Return how many runs of voxels each row holds."""
    return np.count_nonzero(np.diff(sheet.astype(np.int8), axis=1) == 1, axis=1)
