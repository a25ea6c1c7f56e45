"""The one thing that an ensemble asks of an engine."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Network(Protocol):
    """One fold, loaded and warm."""

    def run(self, tile: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map normalised channels (1, channels, z, y, x) to logits (1, classes, z, y, x) of the same tile."""
        ...
