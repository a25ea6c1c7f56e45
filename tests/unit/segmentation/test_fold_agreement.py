import numpy as np
import pytest

from appliance.segmentation.agreement import dice
from appliance.segmentation.fold_agreement import AgreementTally, pairs_of

REGIONS = [frozenset({1}), frozenset({1, 2}), frozenset({3})]
RNG = np.random.default_rng(7)
FOLDS = [RNG.integers(0, 4, (6, 8, 10)).astype(np.uint8) for _ in range(3)]


def tally_of(*folds: np.ndarray, folds_in_all: int = 3) -> AgreementTally:
    """Handed over in two halves along left-right, as tiles are."""
    tally = AgreementTally(REGIONS, 4, folds_in_all, 10)
    tally.folds_decided([one[..., :4] for one in folds], 0)
    tally.folds_decided([one[..., 4:] for one in folds], 4)
    return tally


def mean_dice(folds: list[np.ndarray], classes: list[int]) -> float:
    masks = [np.isin(one, classes) for one in folds]
    return float(np.mean([dice(masks[first], masks[second]) for first, second in pairs_of(len(folds))]))


@pytest.mark.parametrize("classes", [[1], [1, 2], [3]])
def test_counts_give_the_mean_dice_of_all_pairs_of_folds(classes: list[int]) -> None:
    agreement = tally_of(*FOLDS).result(np.arange(10.0))
    assert agreement.pairwise_dice(classes) == pytest.approx(mean_dice(FOLDS, classes))


def test_a_half_of_the_patient_has_figures_of_its_own() -> None:
    agreement = tally_of(*FOLDS).result(np.arange(10.0))
    left = agreement.left_right_mm >= 6
    half = [one[..., 6:] for one in FOLDS]
    assert agreement.pairwise_dice([3], left) == pytest.approx(mean_dice(half, [3]))


def test_a_fold_that_was_spared_counts_as_agreeing_with_the_first() -> None:
    agreement = tally_of(*FOLDS[:2]).result(np.arange(10.0))
    assert agreement.pairwise_dice([1]) == pytest.approx(mean_dice([FOLDS[0], FOLDS[1], FOLDS[0]], [1]))


def test_what_nobody_found_has_no_agreement_and_no_entropy() -> None:
    nothing = [np.zeros((2, 2, 10), np.uint8)] * 3
    tally = AgreementTally(REGIONS, 4, 3, 10)
    tally.folds_decided(nothing, 0)
    agreement = tally.result(np.arange(10.0))
    assert agreement.pairwise_dice([1]) is None
    assert agreement.mean_entropy([1]) is None


def test_the_entropy_of_a_union_is_the_mean_over_all_its_voxels() -> None:
    tally = tally_of(*FOLDS)
    entropy = RNG.random(FOLDS[0].shape).astype(np.float32)
    tally.ensemble_decided(FOLDS[0], entropy, 0)
    agreement = tally.result(np.arange(10.0))
    assert agreement.mean_entropy([1, 2]) == pytest.approx(float(entropy[np.isin(FOLDS[0], [1, 2])].mean()), rel=1e-6)
