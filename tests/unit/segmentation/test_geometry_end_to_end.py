"""What is bright at known millimetres comes back at these millimetres, through the whole engine."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appliance.dicom.geometry import SeriesGeometry
from appliance.dicom.scan_description import ScanDescription
from appliance.segmentation.ensemble import Ensemble
from appliance.segmentation.model_package import load_package
from appliance.segmentation.opening import open_ensemble
from appliance.segmentation.segment import segment
from tests.support.ct_volumes import PATIENT_POSITIONS, mask_positions_mm, scan, series_grid
from tests.support.model_packages import BONE_ROIS, make_threshold_package

MIDDLE_MM = (3.0, 7.0, -2.0)


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Ensemble:
    """Bone from 520 HU, water 40, bone 1000: half way. The softmax is nearly linear, as partial volumes are."""
    folder = make_threshold_package(
        tmp_path_factory.mktemp("packages") / "linear",
        thresholds_hu={"bone": 520.0},
        rois=[{"name": "Bone_Pelvic", "classes": ["bone"], "keep": "largest"}],
        gain_per_hu=0.0005,
        tile=(16, 20, 24),
    )
    return open_ensemble(load_package(folder), threads=1)


def find_bone(ensemble: Ensemble, scene: Any, geometry: SeriesGeometry) -> Any:
    (bone,) = segment(ensemble, scan(scene, geometry), ScanDescription()).masks
    return mask_positions_mm(bone, geometry)


@pytest.mark.parametrize("position", PATIENT_POSITIONS)
@pytest.mark.parametrize("spacing_mm", [(2.0, 1.0, 1.0), (3.0, 1.3, 0.8)])
def test_a_cuboid_of_known_bounds_comes_back_within_half_a_ct_voxel(
    ensemble: Ensemble, position: str, spacing_mm: tuple[float, float, float]
) -> None:
    slices, rows, columns = (round(48 / spacing) * 2 for spacing in spacing_mm)
    geometry = series_grid(position, (slices, rows, columns), spacing_mm, MIDDLE_MM)
    step_mm = np.abs(np.asarray(spacing_mm) @ geometry.directions)  # of the voxels along patient x, y, z
    # bounds between voxels, off centre, and nowhere in particular on the working grid
    low_mm = MIDDLE_MM + np.rint([-21.0, -17.0, -19.0] / step_mm) * step_mm
    high_mm = MIDDLE_MM + np.rint([11.0, 30.0, 20.0] / step_mm) * step_mm

    def cuboid(*place: Any) -> Any:
        inside = [(low < at) & (at < high) for at, low, high in zip(place, low_mm, high_mm, strict=True)]
        return np.where(np.logical_and.reduce(inside), 1000, 40)

    found_mm = find_bone(ensemble, cuboid, geometry)
    from_middle_mm = np.abs(found_mm - (low_mm + high_mm) / 2)
    for axis in range(3):
        # through the middle of the faces, as a coarse grid rounds edges and corners
        through = (np.delete(from_middle_mm, axis, axis=1) < 4.0).all(axis=1)
        low_error_mm = found_mm[through, axis].min() - step_mm[axis] / 2 - low_mm[axis]
        high_error_mm = found_mm[through, axis].max() + step_mm[axis] / 2 - high_mm[axis]
        assert max(abs(low_error_mm), abs(high_error_mm)) <= step_mm[axis] / 2


@pytest.mark.parametrize("position", PATIENT_POSITIONS)
@pytest.mark.parametrize("middle_mm", [(0.0, 0.0, 0.0), (5.3, -3.1, 2.7)])
def test_the_centroid_of_a_ball_does_not_move(
    ensemble: Ensemble, position: str, middle_mm: tuple[float, float, float]
) -> None:
    spacing_mm = (2.0, 1.0, 1.0)

    def ball(x_mm: Any, y_mm: Any, z_mm: Any) -> Any:
        distance_mm = np.sqrt((x_mm - middle_mm[0]) ** 2 + (y_mm - middle_mm[1]) ** 2 + (z_mm - middle_mm[2]) ** 2)
        return 40 + 960 * np.clip(30.5 - distance_mm, 0.0, 1.0)

    geometry = series_grid(position, (48, 96, 96), spacing_mm)
    found_mm = find_bone(ensemble, ball, geometry)
    step_mm = np.abs(np.asarray(spacing_mm) @ geometry.directions)
    assert (np.abs(found_mm.mean(axis=0) - middle_mm) < 0.05 * step_mm).all()
    assert len(found_mm) * np.prod(spacing_mm) == pytest.approx(4 / 3 * np.pi * 30**3, rel=0.02)


def _turned(degrees: float, *, sheared: bool, heights_mm: Any) -> SeriesGeometry:
    """Planes turned about the left-right axis, one above the other along their normal or, sheared, along z."""
    cosine, sine = float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))
    step = np.array([0.0, 0.0, 1.0]) if sheared else np.array([0.0, -sine, cosine])
    in_plane_mm = 47.5 * np.array([1.0, 0.0, 0.0]) + 54.5 * np.array([0.0, cosine, sine])
    positions_mm = (np.asarray(heights_mm) - np.mean([heights_mm[0], heights_mm[-1]]))[:, np.newaxis] * step
    return SeriesGeometry(positions_mm - in_plane_mm, (1.0, 0.0, 0.0), (0.0, cosine, sine), (1.0, 1.0), 110, 96)


HARD = {
    "oblique": _turned(20.0, sheared=False, heights_mm=2.0 * np.arange(52)),
    "tilted gantry": _turned(15.0, sheared=True, heights_mm=2.0 * np.arange(52)),
    "tilted the other way": _turned(-22.0, sheared=True, heights_mm=2.0 * np.arange(52)),
    "uneven gaps": _turned(0.0, sheared=False, heights_mm=np.cumsum([0.0] + [2.0] * 25 + [3.2] * 16)),
}


@pytest.mark.parametrize("geometry", HARD.values(), ids=HARD)
@pytest.mark.parametrize("middle_mm", [(0.0, 0.0, 0.0), (5.3, -3.1, 4.7)])
def test_a_ball_stays_where_it_is_in_every_geometry_that_is_accepted(
    ensemble: Ensemble, geometry: SeriesGeometry, middle_mm: tuple[float, float, float]
) -> None:
    def ball(x_mm: Any, y_mm: Any, z_mm: Any) -> Any:
        distance_mm = np.sqrt((x_mm - middle_mm[0]) ** 2 + (y_mm - middle_mm[1]) ** 2 + (z_mm - middle_mm[2]) ** 2)
        return 40 + 960 * np.clip(30.5 - distance_mm, 0.0, 1.0)

    (bone,) = segment(ensemble, scan(ball, geometry), ScanDescription()).masks
    found_mm = mask_positions_mm(bone, geometry)
    weights = geometry.slice_thickness_mm[np.nonzero(bone.in_grid(geometry.shape))[0]]
    assert np.abs(np.average(found_mm, axis=0, weights=weights) - middle_mm).max() < 0.2
    assert bone.volume_cm3(geometry) == pytest.approx(4 / 3 * np.pi * 27, rel=0.03)
    # through the middle, where a shift of any slice would show
    assert np.linalg.norm(found_mm - middle_mm, axis=1).max() < 32.0


def test_a_phantom_like_ct_yields_the_rois_of_a_pelvis(tmp_path: Path) -> None:
    def pelvis(x_mm: Any, y_mm: Any, _z_mm: Any) -> Any:
        body = (x_mm / 150) ** 2 + (y_mm / 100) ** 2 < 1
        gas = np.hypot(x_mm, y_mm + 30) < 15
        hips = np.hypot(np.abs(x_mm) - 80, y_mm) < 25
        couch = np.abs(y_mm - 125) < 5
        return np.select([hips, gas, body | couch], [700, -900, 30], -1000)

    ensemble = open_ensemble(load_package(make_threshold_package(tmp_path)), threads=1)
    geometry = series_grid("HFS", (40, 160, 180), (3.0, 2.0, 2.0))
    volume = scan(pelvis, geometry)
    masks = {mask.name: mask for mask in segment(ensemble, volume, ScanDescription()).masks}
    assert list(masks) == [roi["name"] for roi in BONE_ROIS]
    body_cm3 = np.pi * 15 * 10 * 12
    assert masks["External"].volume_cm3(geometry) == pytest.approx(body_cm3, rel=0.03)  # filled, and no couch
    hip_cm3 = np.pi * 2.5**2 * 12
    assert masks["Bone_Pelvic"].volume_cm3(geometry) == pytest.approx(2 * hip_cm3, rel=0.08)
    assert mask_positions_mm(masks["Femur_L"], geometry)[:, 0].min() > 0
    assert mask_positions_mm(masks["Femur_R"], geometry)[:, 0].max() < 0
