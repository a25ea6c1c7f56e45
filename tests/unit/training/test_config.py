from typing import Any

import pytest
from pydantic import ValidationError

from appliance.training.config import TrainingConfig
from appliance.training.dataset import training_seeds


def test_the_bundled_configuration_is_valid_and_keeps_its_phantoms_apart(config: Any) -> None:
    assert not set(config.phantoms.seeds) & set(config.held_out.seeds)


def test_an_unknown_key_stops_the_run(config: Any) -> None:
    values = config.model_dump()
    with pytest.raises(ValidationError, match="learning_speed"):
        TrainingConfig.model_validate(values | {"learning_speed": 1})


def test_an_unknown_class_weight_stops_the_run(config: Any) -> None:
    values = config.model_dump()
    values["trunk"]["class_weights"] = {"blader": 2.0}
    with pytest.raises(ValidationError, match="blader"):
        TrainingConfig.model_validate(values)


def test_each_phantom_is_left_out_by_exactly_one_fold() -> None:
    seeds = range(1000, 1007)
    left_out = [set(seeds) - set(training_seeds(seeds, fold, 3)) for fold in range(3)]
    assert set.union(*left_out) == set(seeds)
    assert sum(len(part) for part in left_out) == len(seeds)
    assert training_seeds(seeds, None, 3) == tuple(seeds)
