"""Every library of arrays that the engine may run on here, each as a call that yields it."""

import importlib.util
from collections.abc import Callable

import array_api_compat
import pytest

from appliance.segmentation.arrays import Arrays, host_arrays


def torch_on_cpu() -> Arrays:
    """torch's arrays on the CPU: what a GPU runs, but for the device."""
    torch = pytest.importorskip("torch")
    return Arrays(array_api_compat.array_namespace(torch.empty(0)), "cpu", None)


ARRAY_LIBRARIES: list[Callable[[], Arrays]] = [host_arrays]
if importlib.util.find_spec("torch") is not None:
    ARRAY_LIBRARIES.append(torch_on_cpu)
