"""The part of the class volume that is not finished yet: as many planes as a tile has, rolling over the scan.

The whole class volume of a scan never exists: 117 classes of 512 x 512 x 350 voxels would need 43 GB.
"""

from appliance.segmentation.arrays import Arrays
from appliance.segmentation.backends.network import Array
from appliance.segmentation.working_grid import Box


class Slab:
    """Accumulators (classes, planes, rows, columns) of the planes from `first` on.

    Args:
        arrays: where they live.
        shape: classes, planes of a tile, rows and columns of the grid.
        dtype: "float32" or "float16".
    """

    def __init__(self, arrays: Arrays, shape: tuple[int, int, int, int], dtype: str) -> None:
        self.first = 0
        self._sums = arrays.zeros(shape, dtype)

    def of(self, box: Box) -> Array:
        """The accumulators of a box of the grid, to be added to."""
        planes, rows, columns = box
        return self._sums[:, planes.start - self.first : planes.stop - self.first, rows, columns]

    def finished(self, stop: int) -> Array:
        """The planes from `first` to `stop`, to be read before they are let go."""
        return self._sums[:, : stop - self.first]

    def let_go(self, stop: int) -> None:
        """Forget the planes below `stop`; those behind them move up, and new ones begin at 0."""
        gone, planes = stop - self.first, self._sums.shape[1]
        for first in range(0, planes - gone, gone):  # so that source and target never overlap
            last = min(first + gone, planes - gone)
            self._sums[:, first:last] = self._sums[:, first + gone : last + gone]
        self._sums[:, planes - gone :] = 0
        self.first = stop
