"""A scan that the model was not made for is refused, or warned of, as its manifest says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appliance.dicom.ct_volume import CtVolume
from appliance.dicom.scan_description import ScanDescription
from appliance.errors import Reason, SeriesRefused
from appliance.segmentation.input_check import body_percentiles, check_input
from appliance.segmentation.manifest import Manifest
from tests.support.ct_volumes import series_grid
from tests.support.model_packages import manifest_of_classes

LIMITS = {"slice_spacing_mm": [0.5, 6.0], "min_extent_mm": [10.0, 10.0, 10.0]}
ABDOMEN = ScanDescription(kernel="Br40d\\3", body_part="ABDOMEN", patient_position="HFS")


def volume_of(shape: tuple[int, int, int] = (10, 20, 20), spacing_mm: Any = (3.0, 2.0, 2.0), hu: Any = 40) -> CtVolume:
    return CtVolume(np.full(shape, hu, np.int16), series_grid("HFS", shape, spacing_mm))


def with_limits(**limits: Any) -> Manifest:
    return manifest_of_classes(3, limits=LIMITS | limits)


@pytest.mark.parametrize(
    ("shape", "spacing_mm", "named"),
    [
        ((10, 20, 20), (8.0, 2.0, 2.0), "8.00 mm apart"),
        ((10, 20, 20), (0.4, 2.0, 2.0), "0.40 mm apart"),
        ((1, 20, 20), (5.0, 2.0, 2.0), "0.00 mm apart"),
        ((3, 20, 20), (3.0, 2.0, 2.0), "9 mm long along z"),
        ((10, 20, 4), (3.0, 2.0, 2.0), "8 mm long along x"),
        ((10, 20, 20), (3.0, 0.5, 0.5), "0.500 mm apart"),
    ],
)
def test_a_scan_outside_the_geometry_of_the_model_is_refused_with_the_number(
    shape: Any, spacing_mm: Any, named: str
) -> None:
    with pytest.raises(SeriesRefused) as caught:
        check_input(volume_of(shape, spacing_mm), ABDOMEN, with_limits(pixel_spacing_mm=[0.7, 2.5]))
    assert caught.value.reason is Reason.INPUT_OUTSIDE_MODEL_LIMITS
    assert named in caught.value.sentence
    assert "model classes 1.0.0" in caught.value.sentence


KEPT = {
    "pixel_spacing_mm": [0.5, 2.0],
    "kernels": ["STANDARD", "br4*"],
    "body_parts": ["PELVIS", "abdomen"],
    "patient_positions": ["HFS", "FFS"],
    "hu_percentiles": [{"percentile": 50, "hu": [0, 80]}],
}
BROKEN = {
    "pixel_spacing_mm": ([0.5, 1.0], "pixels are 2.000 mm apart"),
    "kernels": (["STANDARD"], "the scan's kernel is Br40d/3"),
    "body_parts": (["HEAD*"], "the scan's body part is ABDOMEN"),
    "patient_positions": (["FFP"], "the scan's patient position is HFS"),
    "hu_percentiles": ([{"percentile": 50, "hu": [60, 80]}], "50 % of the body lie below 40 HU"),
    "slice_spacing_mm": ([5.0, 6.0], "slices are 3.00 mm apart"),
    "min_extent_mm": ([50.0, 0.0, 0.0], "30 mm long along z"),
}


def test_a_scan_within_all_limits_passes_without_a_word() -> None:
    assert check_input(volume_of(), ABDOMEN, with_limits(**KEPT)) == ()


@pytest.mark.parametrize("limit", BROKEN)
def test_each_limit_refuses_or_warns_as_the_manifest_says(limit: str) -> None:
    value, words = BROKEN[limit]
    (warning,) = check_input(volume_of(), ABDOMEN, with_limits(**KEPT | {limit: value, "warn": [limit]}))
    assert words in warning
    with pytest.raises(SeriesRefused) as caught:
        check_input(volume_of(), ABDOMEN, with_limits(**KEPT | {limit: value, "warn": []}))
    assert caught.value.sentence == warning


def test_a_header_that_says_nothing_does_not_keep_a_limit() -> None:
    (warning,) = check_input(volume_of(), ScanDescription(), with_limits(kernels=["*4*"]))
    assert warning.startswith("the scan does not say its kernel")


def test_a_header_cannot_write_what_it_likes_into_a_sentence() -> None:
    hostile = ScanDescription(kernel="{model}<b>Grüße\n" + "x" * 100)
    (warning,) = check_input(volume_of(), hostile, with_limits(kernels=["A"]))
    assert warning.isascii()
    assert "<" not in warning
    assert "\n" not in warning
    assert warning.count("x") < 16


def test_percentiles_are_those_of_the_body_and_not_of_the_air_around_it() -> None:
    hu = np.full((6, 40, 40), -1000, np.int16)
    hu[:, 10:30, 10:30] = np.arange(400).reshape(20, 20)
    body = hu[:, ::2, ::2]
    expected = np.percentile(body[body > -300], [5, 50, 95], method="lower")
    assert np.abs(np.array(body_percentiles(hu, [5, 50, 95])) - expected).max() <= 2
    assert body_percentiles(np.full((2, 4, 4), -1000, np.int16), [50]) == [0.0]


def test_the_most_extreme_values_are_counted_and_not_wrapped(tmp_path: Path) -> None:
    del tmp_path
    assert body_percentiles(np.full((1, 4, 4), 32767, np.int16), [0, 100]) == [32767.0, 32767.0]
