"""The patient's outline and the couch in scenes that are known."""

from typing import Any

import numpy as np
import pytest

from appliance.dicom.ct_volume import CtVolume
from appliance.segmentation.body import Outlines
from tests.support.ct_volumes import PATIENT_POSITIONS, scan, series_grid, voxel_centres_mm
from tests.support.solids import surface_points_mm

WATER, AIR, SHELL, FOAM = 0.0, -1000.0, -100.0, -940.0


def patient(x: Any, y: Any) -> Any:
    return np.hypot(x / 110, y / 70) < 1


def couch(x: Any, y: Any) -> Any:
    return (np.abs(x) < 130) & (y > 76) & (y < 116)


def supine(x: Any, y: Any, z: Any) -> Any:
    """A patient with a lung, and under their back a couch of foam in a shell."""
    hu = np.where(patient(x, y), WATER, AIR) + 0 * z
    hu = np.where(np.hypot(x - 40, y) < 25, -800.0, hu)
    hu = np.where(couch(x, y), FOAM, hu)
    return np.where(couch(x, y) & ~((np.abs(x) < 122) & (y > 84) & (y < 108)), SHELL, hu)


def scanned(scene: Any = supine, position: str = "HFS", spacing_mm: Any = (8.0, 4.0, 4.0)) -> CtVolume:
    shape = (10, *(int(300 / side) for side in spacing_mm[1:]))
    return scan(scene, series_grid(position, shape, spacing_mm))


def anatomy(volume: CtVolume) -> tuple[Any, Any]:
    x_mm, y_mm, _ = np.moveaxis(voxel_centres_mm(volume.geometry), -1, 0)
    return patient(x_mm, y_mm), couch(x_mm, y_mm)


@pytest.mark.parametrize("position", PATIENT_POSITIONS)
def test_patient_and_couch_are_told_apart_on_whichever_side_the_couch_is(position: str) -> None:
    volume = scanned(position=position)
    inside, table = anatomy(volume)
    outlines = Outlines(volume)
    assert np.array_equal(outlines.body.in_grid(volume.hu.shape), inside)
    assert np.array_equal(outlines.couch.in_grid(volume.hu.shape), table)


def test_on_fine_pixels_the_outline_is_as_fine() -> None:
    volume = scanned(spacing_mm=(20.0, 1.5, 1.5))
    inside, table = anatomy(volume)
    assert np.array_equal(Outlines(volume).body.in_grid(volume.hu.shape), inside)
    assert np.array_equal(Outlines(volume).couch.in_grid(volume.hu.shape), table)


def test_the_outline_runs_between_voxels_where_the_hounsfield_units_say() -> None:
    def blurred(x: Any, y: Any, z: Any) -> Any:
        return np.clip(-300 - 100 * (np.hypot(x, y) - 90), AIR, WATER + 400) + 0 * z

    volume = scanned(blurred, spacing_mm=(20.0, 2.0, 2.0))
    points_mm = surface_points_mm(Outlines(volume).body, volume.geometry)
    assert np.hypot(points_mm[:, 0], points_mm[:, 1]) == pytest.approx(90, abs=0.05)


def test_a_couch_that_the_patient_lies_on_is_no_part_of_the_outline() -> None:
    def touching(x: Any, y: Any, z: Any) -> Any:
        return np.maximum(supine(x, y, z), np.where((np.abs(x) < 30) & (y > 0) & (y < 80), WATER, AIR))

    volume = scanned(touching)
    inside, _ = anatomy(volume)
    body = Outlines(volume).body.in_grid(volume.hu.shape)
    extra = np.argwhere(body & ~inside)
    assert not (inside & ~body).any()
    assert len(extra)
    assert np.abs(voxel_centres_mm(volume.geometry)[tuple(extra.T)][:, 0]).max() < 45
    assert voxel_centres_mm(volume.geometry)[tuple(extra.T)][:, 1].max() < 90


def test_a_thin_part_that_reaches_the_couch_brings_nothing_of_it_along() -> None:
    def leaning(x: Any, y: Any, z: Any) -> Any:
        return np.maximum(supine(x, y, z), np.where((np.abs(x) < 3) & (y > 0) & (y < 78) & (z < -12), WATER, AIR))

    volume = scanned(leaning)
    _, table = anatomy(volume)
    body = Outlines(volume).body.in_grid(volume.hu.shape)
    assert not (body & table).any()
    assert np.count_nonzero(body) > np.count_nonzero(anatomy(volume)[0])


def test_two_legs_are_two_parts_of_one_patient_and_a_tube_is_none() -> None:
    def legs(x: Any, y: Any, z: Any) -> Any:
        hu = np.where((np.hypot(x - 60, y) < 45) | (np.hypot(x + 60, y) < 35), WATER, AIR) + 0 * z
        return np.where(np.hypot(x, y + 100) < 6, WATER, hu)

    volume = scanned(legs)
    x_mm, y_mm, _ = np.moveaxis(voxel_centres_mm(volume.geometry), -1, 0)
    body = Outlines(volume).body.in_grid(volume.hu.shape)
    assert np.array_equal(body, (np.hypot(x_mm - 60, y_mm) < 45) | (np.hypot(x_mm + 60, y_mm) < 35))
    assert Outlines(volume).couch.is_empty


def test_fingers_belong_to_the_hand_and_air_between_them_does_not() -> None:
    def hand(x: Any, y: Any, z: Any) -> Any:
        palm = np.hypot(x, y) < 60
        fingers = (np.abs(x) > 4) & (np.abs(x) < 12) & (y < 0) & (y > -68)
        return np.where(palm | fingers, WATER, AIR) + 0 * z

    volume = scanned(hand, spacing_mm=(20.0, 2.0, 2.0))
    body = Outlines(volume).body.in_grid(volume.hu.shape)
    assert not (body & (volume.hu == AIR)).any()
    assert np.count_nonzero((volume.hu == WATER) & ~body) <= 4 * len(body)  # the tips, at a corner of a coarse pixel
    assert body[:, 43, 69:73].all()


def test_a_couch_that_ends_within_the_scan_ends_in_the_result() -> None:
    def half(x: Any, y: Any, z: Any) -> Any:
        return np.where((z < 0) | patient(x, y), supine(x, y, z), AIR)

    volume = scanned(half)
    assert Outlines(volume).couch.box[0] == slice(0, 5)


def test_a_couch_is_as_thick_where_the_scan_shows_one_shell_only() -> None:
    def cut_off(x: Any, y: Any, z: Any) -> Any:
        return np.where((np.abs(x) > 60) & (y > 100), AIR, supine(x, y, z))

    volume = scanned(cut_off)
    _, table = anatomy(volume)
    found = Outlines(volume).couch.in_grid(volume.hu.shape)
    x_mm = voxel_centres_mm(volume.geometry)[..., 0]
    assert np.array_equal(found & (np.abs(x_mm) < 118), table & (np.abs(x_mm) < 118))


def test_a_scan_of_air_has_neither_patient_nor_couch() -> None:
    volume = scanned(lambda x, y, z: AIR + 0 * x + 0 * y + 0 * z)
    assert Outlines(volume).body.is_empty
    assert Outlines(volume).couch.is_empty


def test_a_patient_on_no_couch_has_none() -> None:
    volume = scanned(lambda x, y, z: np.where(patient(x, y), WATER, AIR) + 0 * z)
    assert Outlines(volume).couch.is_empty
    assert np.array_equal(Outlines(volume).body.in_grid(volume.hu.shape), anatomy(volume)[0])
