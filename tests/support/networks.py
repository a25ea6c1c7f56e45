"""Networks whose answer is a plain function of their input: what an engine is, without an engine."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from appliance.segmentation.arrays import Arrays, host_arrays
from appliance.segmentation.ensemble import Ensemble
from appliance.segmentation.manifest import Manifest
from appliance.segmentation.model_package import ModelPackage
from tests.support.model_packages import HU_PER_UNIT, manifest_of_classes, threshold_logits


class FunctionNetwork:
    """Answers with a function of the channels (B, channels, z, y, x); keeps how many tiles it was asked about."""

    engine = "a function"

    def __init__(self, function: Callable[[Any], Any], manifest: Manifest) -> None:
        tile = manifest.input.tile
        self.input_shape = ("batch", len(manifest.input.channels), *tile)
        self.output_shape = ("batch", len(manifest.classes), *tile)
        self.function = function
        self.batches: list[int] = []

    def run(self, tiles: Any) -> Any:
        self.batches.append(tiles.shape[0])
        assert tiles.shape[1:] == self.input_shape[1:]
        return self.function(tiles)


def thresholds(shift_hu: float, arrays: Arrays, gain_per_hu: float = 0.01) -> Callable[[Any], Any]:
    """Three classes told apart at -300 and 250 HU, shifted."""

    def answer(tiles: Any) -> Any:
        hu = np.asarray(tiles)[:, 0] * HU_PER_UNIT
        logits = threshold_logits(hu, [-300 + shift_hu, 250 + shift_hu], gain_per_hu)
        return arrays.array(np.moveaxis(logits, 0, 1), "float32")

    return answer


def ensemble_of(
    functions: Sequence[Callable[[Any], Any]], arrays: Arrays | None = None, batch: int = 1, **replaced: Any
) -> Ensemble:
    """An ensemble of functions as folds; `replaced` are keys of its manifest of three classes."""
    folds = [{"file": f"fold_{number}.onnx", "sha256": "0" * 64} for number in range(len(functions))]
    manifest = manifest_of_classes(replaced.pop("classes", 3), folds=folds, **replaced)
    package = ModelPackage(manifest, "0" * 64, tuple(Path(fold["file"]) for fold in folds))
    return Ensemble(package, [FunctionNetwork(one, manifest) for one in functions], arrays or host_arrays(), batch)
