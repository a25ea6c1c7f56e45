"""What an engine is tried on before it is used: tiles of a phantom, as the model itself would see them."""

import itertools

import numpy as np
from numpy.typing import NDArray

from appliance.phantoms import make_phantom
from appliance.segmentation.model_package import ModelPackage
from appliance.segmentation.parity import Tiles
from appliance.segmentation.preprocess import AIR_HU, normalise

SEED = 20
COUNT = 2
"""Each is asked of every fold, by every engine and by the reference."""

TISSUE_HU = -300
"""Skin, fat and denser."""


def reference_tiles(package: ModelPackage) -> Tiles:
    """Make the tiles of a phantom that hold the most tissue, (tiles, channels, z, y, x), normalised.

    The phantom shows a pelvis and an abdomen. A model of another region answers something there too, and the same
    question asked of two engines is all that is needed.
    """
    wanted = package.manifest.input
    hu = make_phantom(SEED, spacing_mm=wanted.spacing_mm).hu.astype(np.float32)
    hu = _turned(hu, wanted.orientation)
    pad = [(0, max(0, size - length)) for size, length in zip(wanted.tile, hu.shape, strict=True)]
    hu = np.pad(hu, pad, constant_values=AIR_HU)
    boxes = _apart(hu.shape, wanted.tile)
    boxes.sort(key=lambda box: -np.count_nonzero(hu[box] > TISSUE_HU))
    return np.stack([normalise(hu[box], wanted.channels) for box in boxes[:COUNT]])


def _turned(hu: NDArray[np.float32], orientation: str) -> NDArray[np.float32]:
    """Turn a phantom, which runs to the left, back and head, to where the network's axes run."""
    turned = [letter != own for letter, own in zip(orientation, "LPS", strict=True)]
    return np.ascontiguousarray(np.flip(hu, tuple(2 - index for index, turn in enumerate(turned) if turn)))


def _apart(shape: tuple[int, ...], tile: tuple[int, ...]) -> list[tuple[slice, ...]]:
    """Boxes of a tile's size, at most half over each other along each axis."""
    starts = [
        sorted({*range(0, length - size + 1, max(1, size // 2)), length - size})
        for length, size in zip(shape, tile, strict=True)
    ]
    corners = itertools.product(*starts)
    return [tuple(slice(at, at + size) for at, size in zip(corner, tile, strict=True)) for corner in corners]
