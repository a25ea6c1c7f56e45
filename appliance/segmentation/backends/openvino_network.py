"""OpenVINO on the CPU: reads the same ONNX file, and is the quickest on most processors; an optional part."""

import sys
from threading import Lock
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

# openvino reports to its maker over the Internet as it is imported, where this package of its is there to do so.
sys.modules.setdefault("openvino_telemetry", cast(Any, None))

import openvino  # noqa: E402 - the line above has to come first

from appliance.segmentation.backends.engine import EngineUnusable  # noqa: E402
from appliance.segmentation.backends.network import OutOfMemory  # noqa: E402

NAMES_ANOTHER_FILE = b"location"
"""The key under which an ONNX tensor says in which other file its values are."""


def version() -> str:
    """Return the version of OpenVINO."""
    return str(openvino.__version__).partition("-")[0]


class OpenVinoNetwork:
    """One fold, compiled for this processor; several threads may ask it, one after the other.

    Args:
        network: the content of the ONNX file: one input, one output; only the batch may be left open.
        threads: how many threads one run may use; 0 takes all cores.
        keep_workspace: keep what a run needed for the next one; without it a run costs a tenth more, and the folds of
            an ensemble do not each keep their own.

    Raises:
        EngineUnusable: OpenVINO cannot run this network.
    """

    engine = "OpenVINO on the CPU"

    def __init__(self, network: bytes, threads: int, *, keep_workspace: bool = False) -> None:
        if NAMES_ANOTHER_FILE in network:
            # Unlike ONNX Runtime, it would read them, from wherever the process stands.
            raise EngineUnusable("OpenVINO: the network's file names other files, or might")
        hints: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "f32",  # otherwise a processor with bfloat16 computes in it
            "EXECUTION_MODE_HINT": "ACCURACY",
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # other work of the appliance runs on the same cores
        }
        try:
            model = openvino.Core().read_model(model=network)
            self.input_shape = _shape(model.inputs)
            self.output_shape = _shape(model.outputs)
            self._compiled = openvino.Core().compile_model(model, "CPU", hints)
        except RuntimeError as error:
            raise EngineUnusable(f"OpenVINO cannot run this network: {_first_line(error)}") from error
        self._lock, self._keep_workspace = Lock(), keep_workspace

    def run(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map normalised channels (B, channels, z, y, x) to logits (B, classes, z, y, x).

        Raises:
            OutOfMemory: the processor's memory does not hold it.
        """
        batches = [tiles] if isinstance(self.input_shape[0], str) else np.split(tiles, len(tiles))
        with self._lock:
            try:
                answers = [self._run(np.ascontiguousarray(batch)) for batch in batches]
            except (MemoryError, RuntimeError) as error:
                if isinstance(error, MemoryError) or "alloc" in str(error).casefold():
                    raise OutOfMemory(str(error)) from error
                raise EngineUnusable(f"OpenVINO failed: {_first_line(error)}") from error
            finally:
                if not self._keep_workspace:
                    self._compiled.release_memory()
        return answers[0] if len(answers) == 1 else np.concatenate(answers)

    def _run(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        request = self._compiled.create_infer_request()
        # The answer is a copy: the caller may write into it, and the request's own memory ends with the request.
        answer = request.infer({0: tiles}, share_inputs=True, share_outputs=False)
        return cast(NDArray[np.float32], answer[0])


def _shape(ports: list[Any]) -> tuple[int | str | None, ...]:
    if len(ports) != 1:
        raise EngineUnusable("OpenVINO: the network has several inputs or outputs")
    sides = list(ports[0].get_partial_shape())
    return tuple(side.get_length() if side.is_static else "batch" for side in sides)


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line and not line.startswith("Exception from")]
    return lines[0] if lines else type(error).__name__
