"""A small results folder that nnU-Net itself trained, and what its own predictor finds with it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

NNUNET = Path(__file__).parents[1] / "data" / "nnunet"
"""`model` is the folder, `labels.npz` what was found; both made by benchmarks/nnunet_golden.py."""

Change = Callable[[dict[str, Any]], object]


def change(path: Path, made: Change) -> None:
    values = json.loads(path.read_text())
    made(values)
    path.write_text(json.dumps(values))
