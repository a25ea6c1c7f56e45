"""All folds of a model, warm, asked tile by tile."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from appliance.clock import Effort, measured
from appliance.dicom.ct_volume import CtVolume
from appliance.errors import ModelRefused, Reason
from appliance.segmentation.arrays import Arrays
from appliance.segmentation.backends.network import Network
from appliance.segmentation.model_package import ModelPackage
from appliance.segmentation.preprocess import AIR_HU, normalise, to_working_grid
from appliance.segmentation.probabilities import RoiProbabilities
from appliance.segmentation.sliding_window import cover, cut

OnTile: TypeAlias = Callable[[int, int, int], None]
"""Called with (fold, network runs done, network runs in all) after each run; it may raise to stop."""

TISSUE_HU = -850.0
"""A tile without any voxel above this holds air alone, not even lung; it is background without asking."""


class Ensemble:
    """The networks of one model package, loaded once and used for many scans.

    Args:
        package: a checked package.
        networks: its folds, loaded, in the manifest's order.
        arrays: where the large arrays live.

    Raises:
        ModelRefused: MODEL_INVALID if a network cannot be run, or not on the manifest's tile and classes.
    """

    def __init__(self, package: ModelPackage, networks: Sequence[Network], arrays: Arrays) -> None:
        self.package = package
        self.arrays = arrays
        self._networks = list(networks)
        manifest = package.manifest
        expected_input = (1, len(manifest.input.channels), *manifest.input.tile)
        expected_output = (1, len(manifest.classes), *manifest.input.tile)
        for fold, network in zip(manifest.folds, self._networks, strict=True):
            if (network.input_shape, network.output_shape) != (expected_input, expected_output):
                raise ModelRefused(
                    Reason.MODEL_INVALID,
                    f"{fold.file} maps {network.input_shape} to {network.output_shape}, the manifest needs "
                    f"{expected_input} to {expected_output}; publish the package again",
                )

    @property
    def networks(self) -> tuple[Network, ...]:
        """The folds, in the manifest's order."""
        return tuple(self._networks)

    def predict(self, volume: CtVolume, on_tile: OnTile) -> RoiProbabilities:
        """Ask every fold about every tile that holds tissue, and average their softmax.

        Tile-outer and fold-inner: one accumulator for all folds, whatever their number.

        Raises:
            SeriesRefused: ORIENTATION_UNSUPPORTED.
            ModelRefused: MODEL_INVALID if a network answers with anything but numbers.
        """
        manifest = self.package.manifest
        working = to_working_grid(volume, manifest.input.spacing_mm)
        mean = np.zeros((len(manifest.classes), *working.hu.shape), np.float32)
        tiles = cover(working.hu.shape, manifest.input.tile, manifest.input.overlap)
        occupied = []
        for tile in tiles:
            if working.hu[tile.box].max() > TISSUE_HU:
                occupied.append(tile)
            else:
                mean[0][tile.box] += tile.weights
        efforts = tuple(Effort() for _ in self._networks)
        done = 0
        for tile in occupied:
            cropped = cut(working.hu, tile, manifest.input.tile, AIR_HU)
            channels = normalise(cropped, manifest.input.channels)[np.newaxis]
            share = tile.weights / np.float32(len(self._networks))
            for fold in range(len(self._networks)):
                mean[:, *tile.box] += self._softmax(fold, channels, efforts[fold])[:, *tile.inset] * share
                done += 1
                on_tile(fold, done, len(occupied) * len(self._networks))
        return RoiProbabilities(mean, working.grid, efforts)

    def _softmax(self, fold: int, channels: NDArray[np.float32], effort: Effort) -> NDArray[np.float32]:
        with measured(effort):
            logits = self._networks[fold].run(channels)[0]
        if not np.isfinite(logits).all():
            raise ModelRefused(
                Reason.MODEL_INVALID,
                f"{self.package.manifest.folds[fold].file} answered with values that are not numbers; "
                "publish the package again",
            )
        odds = np.exp(logits - logits.max(axis=0))
        return np.asarray(odds / odds.sum(axis=0))
