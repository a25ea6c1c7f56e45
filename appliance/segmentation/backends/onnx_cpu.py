"""ONNX Runtime on the CPU: the engine of every installation, and the reference for all others."""

from pathlib import Path
from typing import cast

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as runtime_errors

from appliance.errors import ModelRefused, Reason

LOAD_ERRORS = (
    runtime_errors.Fail,
    runtime_errors.InvalidArgument,
    runtime_errors.InvalidGraph,
    runtime_errors.InvalidProtobuf,
    runtime_errors.NotImplemented,
    runtime_errors.RuntimeException,
)
"""What ONNX Runtime raises on a network that it cannot run; its errors share no base class."""


class OnnxNetwork:
    """One fold in an ONNX Runtime session on the CPU.

    Args:
        path: the ONNX file, one input and one output, both of fixed shape.
        threads: how many threads one run may use.

    Raises:
        ModelRefused: MODEL_INVALID, if the file is no network that this runtime can run.
    """

    engine = "ONNX Runtime on the CPU"

    def __init__(self, path: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # A warm session waits between cases; spinning threads would burn a core for nothing.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            # Loaded from bytes, so that a network cannot name further files (ONNX external data) to be read.
            self._session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        except LOAD_ERRORS as error:
            raise ModelRefused(
                Reason.MODEL_INVALID, f"{path.name} is no network that ONNX Runtime can run; publish it again"
            ) from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise ModelRefused(
                Reason.MODEL_INVALID,
                f"{path.name} has {len(inputs)} inputs and {len(outputs)} outputs; one of each is needed",
            )
        self._input_name: str = inputs[0].name
        self.input_shape: tuple[int | str | None, ...] = tuple(inputs[0].shape)
        self.output_shape: tuple[int | str | None, ...] = tuple(outputs[0].shape)

    def run(self, tile: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map normalised channels (1, channels, z, y, x) to logits (1, classes, z, y, x) of the same tile."""
        return cast(NDArray[np.float32], self._session.run(None, {self._input_name: tile})[0])


def providers() -> list[str]:
    """What ONNX Runtime can run networks on here, in its own names, the fastest first."""
    return list(onnxruntime.get_available_providers())
