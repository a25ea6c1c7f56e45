import numpy as np

from appliance.phantoms.noise import smooth_noise, stretch


def test_stretching_is_linear_interpolation_that_stops_at_the_border() -> None:
    values = np.array([1.0, 3.0, 2.0], np.float32)
    positions = np.array([-1.0, 0.25, 1.5, 2.0, 9.0])
    np.testing.assert_allclose(stretch(values, 0, positions), np.interp(positions, [0, 1, 2], values))


def test_a_single_plane_can_be_stretched() -> None:
    np.testing.assert_array_equal(stretch(np.ones((1, 2), np.float32), 0, np.array([0.0, 0.4])), np.ones((2, 2)))


def test_smooth_noise_varies_slowly_and_is_the_same_for_one_seed() -> None:
    first, second = (smooth_noise(np.random.default_rng(3), (20, 30, 40), 8) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == (20, 30, 40)
    assert 0.2 < first.std() < 1.2
    assert np.abs(np.diff(first, axis=2)).max() < 1.0
