"""A model tried out on one tile before it may work: its networks open, and answer with numbers that mean something.

That says nothing about how good they are. It finds what digests cannot: weights that were damaged before the manifest
was written, a network of another engine, a tile that the memory does not hold.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appliance.clock import Effort, measured
from appliance.errors import ModelRefused, Reason
from appliance.segmentation.arrays import to_host
from appliance.segmentation.ensemble import Ensemble
from appliance.segmentation.preprocess import normalise

_AIR_HU, _LUNG_HU, _FAT_HU, _ORGAN_HU, _BONE_HU, _NOISE_HU = -1000.0, -800.0, -100.0, 40.0, 700.0, 15.0
_LEAST_SPREAD = 1e-6
"""Logits that differ by less than this over a whole tile are one answer to everything."""


@dataclass(frozen=True, slots=True)
class Trial:
    """How the networks of a model did.

    Attributes:
        engines: what runs them, in words, each once.
        seconds: what one tile took a fold, in the mean.
    """

    engines: tuple[str, ...]
    seconds: float


def try_out(ensemble: Ensemble) -> Trial:
    """Ask every fold about one tile.

    Raises:
        ModelRefused: MODEL_INVALID, a fold answers with anything but numbers, with the wrong shape, or with the same
            everywhere; the sentence names it.
    """
    manifest = ensemble.package.manifest
    tile = normalise(trial_hu(manifest.input.tile), manifest.input.channels)[np.newaxis]
    effort = Effort()
    for fold, network in zip(manifest.folds, ensemble.networks, strict=True):
        with measured(effort):
            logits = to_host(network.run(ensemble.arrays.array(tile, "float32")))[0]
        what = _what_is_wrong(logits, (len(manifest.classes), *manifest.input.tile))
        if what is not None:
            raise ModelRefused(
                Reason.MODEL_INVALID,
                f"{fold.file} of model {manifest.name} {manifest.version} {what}; import or publish it again",
            )
    engines = dict.fromkeys(network.engine for network in ensemble.networks)
    return Trial(tuple(engines), effort.seconds / len(manifest.folds))


def _what_is_wrong(logits: NDArray[np.float32], shape: tuple[int, ...]) -> str | None:
    if logits.shape != shape:
        return f"answers with shape {logits.shape} where {shape} belongs"
    if not np.isfinite(logits).all():
        return "answers with values that are not numbers"
    by_class = logits.reshape(len(logits), -1)
    if float(np.ptp(by_class - by_class[:1], axis=1).max()) < _LEAST_SPREAD:
        return "gives the same answer for air, bone and everything between"
    return None


def trial_hu(shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """A tile (z, y, x) in HU with a body of fat and organ, a lung, a bone and air around, and some noise."""
    z, y, x = (np.linspace(-1.0, 1.0, side, dtype=np.float32) for side in shape)
    z, y, x = z[:, None, None], y[None, :, None], x[None, None, :]
    radius = np.sqrt(y**2 + x**2) + 0 * z
    hu = np.select([radius < 0.75, radius < 0.9], [_ORGAN_HU, _FAT_HU], _AIR_HU).astype(np.float32)
    hu[z**2 + y**2 + (x - 0.4) ** 2 < 0.09] = _LUNG_HU
    hu[(y - 0.3) ** 2 + (x + 0.3) ** 2 + 0 * z < 0.04] = _BONE_HU
    noise = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return np.asarray(hu + np.float32(_NOISE_HU) * noise, np.float32)
