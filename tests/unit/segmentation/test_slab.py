from collections.abc import Callable

import numpy as np
import pytest

from appliance.segmentation.arrays import Arrays, to_host
from appliance.segmentation.slab import Slab
from tests.support.array_libraries import ARRAY_LIBRARIES


@pytest.mark.parametrize("arrays", ARRAY_LIBRARIES)
@pytest.mark.parametrize("starts", [(0, 3, 6, 9), (0, 1, 2, 3, 8, 9), (0, 10, 20), (0,), (0, 7, 9)])
def test_what_is_added_plane_by_plane_comes_out_once_and_whole(
    arrays: Callable[[], Arrays], starts: tuple[int, ...]
) -> None:
    planes, length = 10, starts[-1] + 10
    rng = np.random.default_rng(4)
    expected, seen = np.zeros((2, length, 3, 4)), []
    slab = Slab(arrays(), (2, planes, 3, 4), "float32")
    for start, stop in zip(starts, (*starts[1:], length), strict=True):
        piece = rng.normal(size=(2, planes, 3, 4)).astype(np.float32)
        expected[:, start : start + planes] += piece
        accumulators = slab.of((slice(start, start + planes), slice(0, 3), slice(0, 4)))
        accumulators += arrays().array(piece)
        seen.append(to_host(slab.finished(stop)).copy())
        slab.let_go(stop)
    assert np.allclose(np.concatenate(seen, axis=1), expected, atol=1e-5)
