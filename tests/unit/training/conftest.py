from pathlib import Path
from typing import Any

import pytest

CONFIG = Path(__file__).parents[3] / "configs/training/pelvis_demo.toml"


@pytest.fixture
def config() -> Any:
    """The bundled model's configuration, shrunk until a run takes a second."""
    from appliance.training.config import load_training_config

    full = load_training_config(CONFIG)
    network = full.network.model_copy(update={"features": (4, 8), "tile": (8, 16, 16), "spacing_mm": 16.0})
    stage = {"steps": 2, "tile": (8, 16, 16)}
    return full.model_copy(
        update={
            "network": network,
            "trunk": full.trunk.model_copy(update=stage),
            "fold": full.fold.model_copy(update=stage),
            "folds": 2,
            "threads": 1,
            "precision": "float32",
            "phantoms": full.phantoms.model_copy(update={"count": 2}),
            "checkpoint_every_s": 1e-9,
        }
    )
