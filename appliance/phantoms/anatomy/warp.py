"""A gentle, smooth deformation of the finished patient, so that no organ keeps its textbook curve."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from appliance.phantoms.noise import smooth_noise
from appliance.phantoms.shapes import SHAPE

Codes: TypeAlias = npt.NDArray[np.uint8]


def warp_maps(tissue: Codes, structure: Codes, rng: np.random.Generator) -> tuple[Codes, Codes]:
    """Move every voxel by a smooth random field of a few millimetres (nearest neighbour, both maps alike)."""
    amplitude = rng.uniform(0.3, 1.3)
    sources = []
    for axis, n in enumerate(SHAPE):
        along = np.arange(n, dtype=np.float32).reshape([-1 if k == axis else 1 for k in range(3)])
        moved = along + 0.5 + amplitude * smooth_noise(rng, SHAPE, 16)
        sources.append(np.clip(moved.astype(np.int32), 0, n - 1))
    flat = (sources[0] * SHAPE[1] + sources[1]) * SHAPE[2] + sources[2]
    return tissue.ravel()[flat], structure.ravel()[flat]
