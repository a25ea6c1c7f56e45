"""Each fault does what its name says, and more of it at a higher severity."""

import numpy as np
import pytest

from appliance.phantoms.faults import FLIPPED_AXES, Fault, spoiled, turned

SHAPE, SPACING_MM = (12, 20, 24), (4.0, 2.0, 2.0)


def scan() -> np.ndarray:
    hu = np.full(SHAPE, -1000, np.int16)
    hu[3:9, 5:15, 4:16] = 40
    hu[5, 8, 6] = 900
    return hu


def changed(fault: Fault, severity: float) -> float:
    seen = spoiled(scan(), fault, severity, SPACING_MM, np.random.default_rng(1))
    assert seen.dtype == np.int16
    return float(np.abs(seen.astype(float) - scan()).mean())


@pytest.mark.parametrize("fault", [Fault.NOISE, Fault.BLUR, Fault.HU_SHIFT, Fault.STREAKS])
def test_a_fault_changes_the_scan_the_more_the_graver_it_is(fault: Fault) -> None:
    assert 0 < changed(fault, 0.0) < changed(fault, 1.0)


@pytest.mark.parametrize("fault", FLIPPED_AXES)
def test_a_scan_the_wrong_way_round_is_the_same_scan_and_its_truth_goes_with_it(fault: Fault) -> None:
    seen = spoiled(scan(), fault, 0.5, SPACING_MM, np.random.default_rng(1))
    assert not np.array_equal(seen, scan())
    assert np.array_equal(turned(seen > 500, fault), scan() > 500)
    assert np.array_equal(turned(scan() > 0, fault), seen > 0)


def test_a_clean_scan_stays_as_it_is_and_so_does_the_given_one() -> None:
    hu = scan()
    assert np.array_equal(spoiled(hu, Fault.CLEAN, 1.0, SPACING_MM, np.random.default_rng(1)), hu)
    spoiled(hu, Fault.NOISE, 1.0, SPACING_MM, np.random.default_rng(1))
    assert np.array_equal(hu, scan())
    assert np.array_equal(turned(hu > 0, Fault.NOISE), hu > 0)


def test_blur_is_in_millimetres() -> None:
    hu = np.zeros((41, 41, 41), np.int16)
    hu[20, 20, 20] = 3000
    seen = spoiled(hu, Fault.BLUR, 0.0, (1.0, 2.0, 2.0), np.random.default_rng(1)).astype(float)
    z, y = seen.sum(axis=(1, 2)), seen.sum(axis=(0, 2))
    widths = [np.sqrt((one * (np.arange(41) - 20) ** 2).sum() / one.sum()) for one in (z, y)]
    assert widths[0] * 1.0 == pytest.approx(2.4, rel=0.15)
    assert widths[1] * 2.0 == pytest.approx(2.4, rel=0.15)
