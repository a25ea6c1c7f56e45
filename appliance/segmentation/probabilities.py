"""What an ensemble says about a scan."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appliance.clock import Effort
from appliance.segmentation.working_grid import WorkingGrid


@dataclass(frozen=True, eq=False)
class RoiProbabilities:
    """How likely each class is at each voxel of the working grid.

    Attributes:
        mean_softmax: float32 (classes, z, y, x), LPS, the mean over the folds; sums to 1 over the classes.
        grid: where these voxels are, and which CT they stand for. Outside the grid there is background.
        network_effort: what each fold's network runs cost, without all that is around them.
    """

    mean_softmax: NDArray[np.float32]
    grid: WorkingGrid
    network_effort: tuple[Effort, ...] = ()
