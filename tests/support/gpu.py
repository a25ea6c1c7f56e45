"""Whether there is a GPU to test on, and in words why not."""

from functools import cache
from importlib.util import find_spec


@cache
def why_no_gpu() -> str | None:
    """Why tests of a GPU cannot run here; None if they can."""
    if find_spec("torch") is None:
        return "torch is not installed"
    import torch

    return None if torch.cuda.is_available() else "there is no CUDA device here"
