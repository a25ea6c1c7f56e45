from typing import Any

import numpy as np
import pytest

from appliance.dicom.ct_volume import CtVolume
from appliance.segmentation.manifest import Channel
from appliance.segmentation.preprocess import AIR_HU, WorkingVolume, normalise, to_working_grid
from tests.support.ct_volumes import scan, series_grid
from tests.support.model_packages import manifest_of_classes

INPUT = manifest_of_classes(2).input


def on_network(volume: WorkingVolume) -> Any:
    return volume.grid.to_network(volume.values, np)


def lopsided_patient(x_mm: Any, y_mm: Any, z_mm: Any) -> Any:
    body = (x_mm / 60) ** 2 + (y_mm / 40) ** 2 < 1
    left_arm = (x_mm - 80) ** 2 + y_mm**2 < 10**2
    front = y_mm < -20
    return np.select([left_arm, body & front & (z_mm > 0), body], [100, 60, -80], -1000)


@pytest.mark.parametrize("position", ["HFP", "FFS", "FFP", "HFDR"])
def test_the_network_sees_the_same_patient_however_the_series_is_stored(position: str) -> None:
    seen = [
        to_working_grid(scan(lopsided_patient, series_grid(way, (20, 128, 128), (3.0, 1.5, 1.5))), INPUT)
        for way in ("HFS", position)
    ]
    assert np.allclose(on_network(seen[0]), on_network(seen[1]), atol=0.01)


def test_the_crop_keeps_arms_and_drops_air_and_no_value_depends_on_it() -> None:
    volume = scan(lopsided_patient, series_grid("HFS", (20, 128, 128), (3.0, 1.5, 1.5)))
    filling = volume.hu.copy()
    filling[:, :4, :] = 500  # walls at both ends of the scan, far from the body
    filling[:, -4:, :] = 500
    cropped = to_working_grid(volume, INPUT)
    whole = to_working_grid(CtVolume(hu=filling, geometry=volume.geometry), INPUT)
    assert whole.values.shape == (15, 48, 48)
    inside = tuple(
        slice(int(np.searchsorted(all_mm, few_mm[0])), int(np.searchsorted(all_mm, few_mm[-1])) + 1)
        for all_mm, few_mm in zip(whole.grid.centres_mm, cropped.grid.centres_mm, strict=True)
    )
    assert np.array_equal(whole.values[inside], cropped.values)
    _, y_mm, x_mm = (centres - 127 * 1.5 / 2 for centres in cropped.grid.centres_mm)
    assert (-70 < y_mm[0] < -55, 55 < y_mm[-1] < 70) == (True, True)  # the body ends at 40 mm
    assert (-90 < x_mm[0] < -75, x_mm[-1] > 90) == (True, True)  # body to -60 mm, arm to 90 mm


def test_specks_and_wires_do_not_widen_the_crop() -> None:
    volume = scan(lopsided_patient, series_grid("HFS", (20, 128, 128), (3.0, 1.5, 1.5)))
    specked = volume.hu.copy()
    specked[8:11, :3, :3] = 3000
    shapes = [
        to_working_grid(CtVolume(hu=hu, geometry=volume.geometry), INPUT).values.shape for hu in (volume.hu, specked)
    ]
    assert shapes[0] == shapes[1]


def test_a_scan_of_air_alone_is_kept_whole() -> None:
    volume = scan(lambda *at: np.full_like(at[0], -1000), series_grid("HFS", (10, 40, 40), (4.0, 2.0, 2.0)))
    assert to_working_grid(volume, INPUT).values.shape == (10, 20, 20)


def test_values_that_mark_outside_the_field_of_view_are_air() -> None:
    def bore(x_mm: Any, y_mm: Any, _z_mm: Any) -> Any:
        return np.where(np.hypot(x_mm, y_mm) > 30, -3024, 0)

    volume = scan(bore, series_grid("HFS", (10, 40, 40), (4.0, 2.0, 2.0)))
    assert to_working_grid(volume, INPUT).values.min() == AIR_HU


def test_channels_are_offset_scaled_and_clipped() -> None:
    channels = [
        Channel(offset_hu=30, scale_hu=200, clip=(-1.2, 1.6)),
        Channel(offset_hu=0, scale_hu=1000, clip=(-1, 2)),
    ]
    hu = np.array([-1000.0, 30.0, 130.0, 3000.0], np.float32).reshape(1, 1, 4)
    seen = normalise(hu, channels)
    assert seen.dtype == np.float32
    assert np.allclose(seen[0].ravel(), [-1.2, 0.0, 0.5, 1.6])
    assert np.allclose(seen[1].ravel(), [-1.0, 0.03, 0.13, 2.0])
