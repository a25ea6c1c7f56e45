import numpy as np
import pytest

from appliance.segmentation.resample import area_weights, linear_weights, used_sources

CT_MM = np.arange(100) * 0.977 + 3.1
WORKING_MM = np.arange(22) * 4.0 + 9.7


@pytest.mark.parametrize("weights", [linear_weights(CT_MM, WORKING_MM), area_weights(CT_MM, WORKING_MM, 4.0)])
def test_a_linear_ramp_keeps_its_value_at_every_position(weights: np.ndarray) -> None:
    assert np.allclose(weights @ CT_MM, WORKING_MM, atol=1e-9)


@pytest.mark.parametrize("spacing_mm", [0.5, 0.977, 3.0, 4.0, 7.5])
def test_a_constant_stays_constant_even_beyond_the_ends(spacing_mm: float) -> None:
    target_mm = np.arange(-20.0, 130.0, spacing_mm)
    for weights in (linear_weights(CT_MM, target_mm), area_weights(CT_MM, target_mm, spacing_mm)):
        assert np.allclose(weights.sum(axis=1), 1.0)
        assert weights.min() >= 0.0


def test_voxels_at_the_same_places_are_taken_over_unchanged() -> None:
    assert np.allclose(linear_weights(CT_MM, CT_MM), np.eye(100), atol=1e-9)
    assert np.allclose(area_weights(CT_MM, CT_MM, 0.977), np.eye(100), atol=1e-9)


def test_beyond_the_ends_the_outermost_value_holds() -> None:
    assert linear_weights(CT_MM, np.array([-5.0, 500.0])) @ CT_MM == pytest.approx([CT_MM[0], CT_MM[-1]])


def test_one_slice_alone_is_spread_over_all_targets() -> None:
    assert (linear_weights(np.array([5.0]), WORKING_MM) == 1.0).all()


def test_noise_of_a_fine_ct_is_averaged_out_rather_than_aliased() -> None:
    kept = (area_weights(CT_MM, WORKING_MM, 4.0) ** 2).sum(axis=1)
    assert kept.max() < 1.15 * 0.977 / 4.0  # about four independent voxels average into one


def test_a_ct_as_coarse_as_the_target_is_only_interpolated() -> None:
    thick_mm = np.arange(20) * 5.0
    assert np.array_equal(area_weights(thick_mm, WORKING_MM, 4.0), linear_weights(thick_mm, WORKING_MM))


def test_only_sources_with_weight_are_used() -> None:
    assert used_sources(linear_weights(np.arange(10.0), np.array([3.5, 5.25]))) == slice(3, 7)
