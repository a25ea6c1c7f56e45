from typing import Any

import pytest

torch = pytest.importorskip("torch")

from appliance.training.losses import segmentation_loss  # noqa: E402


def confident(classes: Any, count: int) -> Any:
    return 30.0 * torch.nn.functional.one_hot(classes, count).permute(0, 4, 1, 2, 3).float()


@pytest.fixture
def truth() -> Any:
    classes = torch.zeros(2, 4, 8, 8, dtype=torch.int64)
    classes[:, 1:3, 2:6, 2:6] = 1
    return classes


def test_a_perfect_answer_costs_nothing(truth: Any) -> None:
    assert segmentation_loss(confident(truth, 3), truth, torch.ones(3)).item() == pytest.approx(0, abs=1e-3)


def test_a_wrong_answer_costs_more_than_an_unsure_one(truth: Any) -> None:
    unsure, wrong = torch.zeros(2, 3, 4, 8, 8), confident(1 - truth, 3)
    weights = torch.ones(3)
    assert segmentation_loss(wrong, truth, weights) > segmentation_loss(unsure, truth, weights) > 1


def test_a_class_that_the_tile_does_not_hold_does_not_count_for_dice(truth: Any) -> None:
    two, three = (segmentation_loss(confident(truth, count), truth, torch.ones(count)) for count in (2, 3))
    assert two.item() == pytest.approx(three.item(), abs=1e-4)


def test_a_heavier_class_costs_more_where_it_is_missed(truth: Any) -> None:
    missed = confident(torch.zeros_like(truth), 2)
    light = segmentation_loss(missed, truth, torch.tensor([1.0, 1.0]))
    assert segmentation_loss(missed, truth, torch.tensor([1.0, 4.0])) > light
