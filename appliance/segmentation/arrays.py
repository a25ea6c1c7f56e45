"""Where the large arrays of one engine live: numpy's on the CPU, or torch's on a GPU, behind one standard.

Everything between a CT's Hounsfield units and its labels is written once, on the array API standard
(data-apis.org/array-api, by array-api-compat). torch is imported only where a GPU is used.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import array_api_compat
import numpy as np
from numpy.typing import ArrayLike, NDArray

from appliance.segmentation.backends.network import Array

CACHE_BYTES = 256 * 1024
"""How much of a tile is worked on at once on a processor: it stays in the cache of one core."""


@dataclass(frozen=True)
class Arrays:
    """A library of arrays and the device that they are on.

    Attributes:
        xp: the library, as the array API standard has it.
        device: the library's own name of the device.
        chunk_bytes: how much to work on at once; None takes everything.
        memory_errors: what the library raises when there is no room for an array.
        wait: returns when the device has done all that it was told to.
    """

    xp: Any
    device: Any = None
    chunk_bytes: int | None = None
    memory_errors: tuple[type[Exception], ...] = (MemoryError,)
    wait: Callable[[], None] = lambda: None

    def array(self, values: ArrayLike, dtype: str | None = None) -> Array:
        """Bring values here, as a type of the standard's name; numpy's own are taken without a copy."""
        given = np.asarray(values) if dtype is None else np.asarray(values, dtype)
        return self.xp.asarray(given, device=self.device)

    def zeros(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Return zeros of a shape and a type of the standard's name."""
        return self.xp.zeros(shape, dtype=getattr(self.xp, dtype), device=self.device)

    def empty(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Return an array whose values are still to be written."""
        return self.xp.empty(shape, dtype=getattr(self.xp, dtype), device=self.device)

    def planes_at_once(self, bytes_a_plane: int, planes: int) -> int:
        """How many planes of a tile to work on together."""
        return planes if self.chunk_bytes is None else max(1, min(planes, self.chunk_bytes // max(1, bytes_a_plane)))


def host_arrays() -> Arrays:
    """Numpy's arrays, in the memory of this process."""
    return Arrays(array_api_compat.array_namespace(np.empty(0)), "cpu", CACHE_BYTES)


def to_host(array: Array) -> NDArray[Any]:
    """Return the same values as numpy's array; one that is numpy's already is returned itself."""
    return array if isinstance(array, np.ndarray) else np.asarray(array.cpu())
