import numpy as np
import pytest

from appliance.training.metrics import dice, hausdorff95_mm


def box(start: int, stop: int) -> np.ndarray:
    mask = np.zeros((20, 20, 20), np.bool_)
    mask[5:15, 5:15, start:stop] = True
    return mask


def test_equal_masks_overlap_fully_and_lie_at_no_distance() -> None:
    assert dice(box(5, 10), box(5, 10)) == 1
    assert hausdorff95_mm(box(5, 10), box(5, 10), (3.0, 1.0, 1.0)) == 0


def test_half_an_overlap_is_half_a_dice() -> None:
    assert dice(box(0, 10), box(5, 15)) == pytest.approx(0.5)


def test_a_shift_is_measured_in_millimetres_along_its_axis() -> None:
    assert hausdorff95_mm(box(5, 10), box(8, 13), (1.0, 1.0, 2.0)) == pytest.approx(6)


def test_what_was_not_found_scores_nothing_and_is_infinitely_far() -> None:
    empty = np.zeros((20, 20, 20), np.bool_)
    assert dice(empty, box(5, 10)) == 0
    assert hausdorff95_mm(empty, box(5, 10), (1.0, 1.0, 1.0)) == float("inf")
