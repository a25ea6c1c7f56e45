import numpy as np
import pytest

from appliance.segmentation.agreement import dice, hausdorff95_mm


def _box(z: slice, y: slice, x: slice) -> np.ndarray:
    mask = np.zeros((12, 14, 16), np.bool_)
    mask[z, y, x] = True
    return mask


def test_dice_is_one_for_the_same_mask_and_zero_for_masks_apart() -> None:
    one, other = _box(slice(2, 5), slice(2, 6), slice(2, 7)), _box(slice(8, 10), slice(2, 6), slice(2, 7))
    assert dice(one, one) == 1.0
    assert dice(one, other) == 0.0


def test_dice_of_a_half_covered_mask_is_two_thirds() -> None:
    whole, half = _box(slice(2, 6), slice(2, 6), slice(2, 6)), _box(slice(2, 4), slice(2, 6), slice(2, 6))
    assert dice(whole, half) == pytest.approx(2 / 3)


def test_two_absent_structures_agree() -> None:
    nothing = np.zeros((3, 3, 3), np.bool_)
    assert dice(nothing, nothing) == 1.0
    assert hausdorff95_mm(nothing, nothing, (1, 1, 1)) == 0.0


def test_an_absent_structure_is_infinitely_far() -> None:
    nothing, something = np.zeros((3, 3, 3), np.bool_), np.ones((3, 3, 3), np.bool_)
    assert hausdorff95_mm(nothing, something, (1, 1, 1)) == float("inf")


@pytest.mark.parametrize(("axis", "spacing_mm"), list(enumerate((3.0, 1.0, 0.5))))
def test_a_shifted_plate_is_as_far_as_it_was_shifted_in_millimetres(axis: int, spacing_mm: float) -> None:
    plate = np.zeros((12, 14, 16), np.bool_)
    plate[tuple(slice(4, 5) if other == axis else slice(None) for other in range(3))] = True
    shifted = np.roll(plate, 3, axis)
    assert hausdorff95_mm(plate, shifted, (3.0, 1.0, 0.5)) == pytest.approx(3 * spacing_mm)


def test_the_border_of_the_volume_counts_as_surface() -> None:
    everything = np.ones((5, 5, 5), np.bool_)
    core = np.zeros((5, 5, 5), np.bool_)
    core[2, 2, 2] = True
    assert hausdorff95_mm(everything, core, (1.0, 1.0, 1.0)) > 2.0
