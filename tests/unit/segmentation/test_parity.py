"""The gate: what an engine must do to be used, shown with networks that fail in one way each."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from appliance.errors import ModelRefused, Reason
from appliance.segmentation.arrays import host_arrays
from appliance.segmentation.backends.engine import Engine, EngineUnusable
from appliance.segmentation.backends.network import OutOfMemory
from appliance.segmentation.parity import LEAST_DICE, Candidate, Comparison, examine

TILES = np.random.default_rng(4).standard_normal((2, 1, 10, 10, 10)).astype(np.float32)


def logits_of(tiles: Any) -> Any:
    """Three classes, each of which wins somewhere."""
    return np.concatenate([0.3 - tiles, tiles, 2 * tiles - 1], axis=1)


class Answering:
    engine = "a function"
    input_shape = output_shape = ("batch", 1, 10, 10, 10)

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.run = function


def candidate(function: Callable[[Any], Any], *, name: str = "other") -> Candidate:
    return Candidate(Engine(name, "1"), host_arrays(), lambda _fold: Answering(function))


REFERENCE = candidate(logits_of, name="reference")


def one_voxel_of_another_class(tiles: Any) -> Any:
    logits = logits_of(tiles)
    labels = logits.argmax(1)
    logits[(*np.argwhere(labels == 2)[0][:1], 0, *np.argwhere(labels == 2)[0][1:])] = 9.0
    return logits


def background_everywhere(tiles: Any) -> Any:
    logits = logits_of(tiles)
    logits[:, 0] += 20
    return logits


def with_one_nan(tiles: Any) -> Any:
    logits = logits_of(tiles)
    logits[0, 1, 3, 3, 3] = np.nan
    return logits


def raising(error: Exception) -> Callable[[Any], Any]:
    def answer(_tiles: Any) -> Any:
        raise error

    return answer


def test_an_engine_that_answers_as_the_reference_does_may_be_used_and_is_measured() -> None:
    outcome = examine(candidate(lambda tiles: logits_of(tiles) + 1e-5), REFERENCE, TILES, folds=3)
    assert outcome.objection is None
    assert outcome.least_dice == 1.0
    assert outcome.seconds is not None
    assert outcome.seconds > 0


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (one_voxel_of_another_class, "its labels are not the reference's (Dice 0.9"),
        (background_everywhere, "its labels are not the reference's (Dice 0.0000"),
        (with_one_nan, "values that are not numbers"),
        (lambda tiles: logits_of(tiles)[:, :2], "values that are not numbers"),
        (lambda tiles: logits_of(tiles) * 1.2, "its logits are not the reference's (off by 2"),
        (raising(EngineUnusable("its libraries do not start")), "its libraries do not start"),
        (raising(OutOfMemory("full")), "no room for one tile"),
        (raising(ModelRefused(Reason.MODEL_INVALID, "the tensors do not fit")), "the tensors do not fit"),
    ],
)
def test_an_engine_that_does_not_is_named_with_what_is_wrong(function: Callable[[Any], Any], words: str) -> None:
    outcome = examine(candidate(function), REFERENCE, TILES, folds=1)
    assert outcome.objection is not None
    assert words in outcome.objection


def test_every_fold_has_to_agree_and_the_one_that_does_not_is_named() -> None:
    functions = [logits_of, logits_of, background_everywhere]
    mixed = Candidate(Engine("other", "1"), host_arrays(), lambda fold: Answering(functions[fold]))
    objection = examine(mixed, REFERENCE, TILES, folds=3).objection
    assert objection is not None
    assert objection.startswith("fold 3: ")


def test_where_one_class_alone_occurs_the_logits_still_tell_a_dead_engine() -> None:
    alone = candidate(background_everywhere, name="reference")
    dead = candidate(lambda tiles: np.concatenate([20 + 0 * tiles, 0 * tiles, 0 * tiles], axis=1))
    objection = examine(dead, alone, TILES, folds=1).objection
    assert objection is not None
    assert "its logits are not the reference's" in objection


def test_a_full_device_is_tried_again_another_time() -> None:
    assert not examine(candidate(raising(OutOfMemory("full"))), REFERENCE, TILES, folds=1).lasting


def test_a_file_that_was_altered_stops_the_model_whichever_engine_meets_it() -> None:
    altered = candidate(raising(ModelRefused(Reason.MODEL_ALTERED, "altered")))
    with pytest.raises(ModelRefused):
        examine(altered, REFERENCE, TILES, folds=1)


def test_a_network_for_another_tile_is_refused_by_the_reference() -> None:
    with pytest.raises(ModelRefused, match="the manifest's tile"):
        examine(REFERENCE, REFERENCE, TILES[..., :8], folds=1)


def test_the_examination_can_be_stopped_between_folds() -> None:
    seen: list[int] = []
    examine(candidate(logits_of), REFERENCE, TILES, 3, lambda: seen.append(1))
    assert len(seen) == 3


def test_dice_is_that_of_the_class_that_agrees_least() -> None:
    reference = np.zeros((1, 2, 1, 1, 1000), np.float32)
    reference[0, 1, ..., :10] = 1
    answer = reference.copy()
    answer[0, 1, ..., 9] = -1
    comparison = Comparison(classes=2)
    comparison.add(reference, answer)
    assert comparison.least_dice == pytest.approx(2 * 9 / (10 + 9))
    assert comparison.least_dice < LEAST_DICE
