"""ONNX Runtime: on the CPU the engine of every installation and the reference for all others; on a GPU if it pays.

A fold is always read from bytes whose digest was checked, and a network cannot name further files to be read.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as runtime_errors

from appliance.errors import ModelRefused, Reason
from appliance.segmentation.arrays import Arrays
from appliance.segmentation.backends.engine import Engine, EngineUnusable
from appliance.segmentation.backends.network import Array, OutOfMemory

ERRORS = (
    runtime_errors.EPFail,
    runtime_errors.Fail,
    runtime_errors.InvalidArgument,
    runtime_errors.InvalidGraph,
    runtime_errors.InvalidProtobuf,
    runtime_errors.NotImplemented,
    runtime_errors.RuntimeException,
)
"""What ONNX Runtime raises on a network that it cannot run; its errors share no base class."""

SIGNS_OF_NO_MEMORY = ("bad_alloc", "failed to allocate", "out of memory", "alloc_failed", "bfcarena")
"""Words in ONNX Runtime's messages when an allocation failed; it has no error of its own for that."""

PROVIDERS = {"onnxruntime": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}

Shape: TypeAlias = tuple[int | str | None, ...]


def version() -> str:
    """Return the version of ONNX Runtime."""
    return str(onnxruntime.__version__)


def gpu_providers() -> list[str]:
    """Names of the engines on a GPU that this ONNX Runtime was built with; whether they start is another question."""
    built_in = onnxruntime.get_available_providers()
    return [name for name, provider in PROVIDERS.items() if provider in built_in]


class OnnxNetwork:
    """One fold in an ONNX Runtime session on the CPU.

    Args:
        network: the content of the ONNX file: one input, one output; only the batch may be left open.
        name: of the file, for refusals.
        threads: how many threads one run may use; 0 takes all cores.

    Raises:
        ModelRefused: MODEL_INVALID, if it is no network that this runtime can run.
    """

    engine = "ONNX Runtime on the CPU"

    def __init__(self, network: bytes, name: str, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        # An arena would keep what the largest run needed, once for each fold; without it a run costs the same.
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 4  # what goes wrong is raised, and said once
        self._session = _session(network, name, options, threads, ["CPUExecutionProvider"])
        self._input_name, self.input_shape, self.output_shape = _shapes(self._session, name)

    def run(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map normalised channels (B, channels, z, y, x) to logits (B, classes, z, y, x).

        Raises:
            OutOfMemory: the processor's memory does not hold it.
        """
        batches = [tiles] if _is_open(self.input_shape) else np.split(tiles, len(tiles))
        answers = [self._run(batch) for batch in batches]
        return answers[0] if len(answers) == 1 else np.concatenate(answers)

    def _run(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            return cast(NDArray[np.float32], self._session.run(None, {self._input_name: tiles})[0])
        except ERRORS as error:
            raise _out_of_memory_or(error) from error


class OnnxGpuNetwork:
    """One fold in an ONNX Runtime session on a GPU; tiles and logits stay there.

    Args:
        network: the content of the ONNX file.
        name: of the file, for refusals.
        engine: CUDA or TensorRT, on which GPU, in which precision.
        arrays: torch's arrays on that GPU.
        cache: where TensorRT keeps the engines that it builds; None builds them anew.

    Raises:
        EngineUnusable: the GPU or its libraries do not start with this network.
        OutOfMemory: the GPU does not hold the network.
    """

    def __init__(self, network: bytes, name: str, engine: Engine, arrays: Arrays, cache: Path | None = None) -> None:
        self.engine = engine.words
        self._arrays = arrays
        self._device = engine.device_number
        chosen = PROVIDERS[engine.name]
        providers: list[Any] = [("CUDAExecutionProvider", _cuda_options(engine))]
        if engine.name == "tensorrt":
            providers.insert(0, (chosen, _tensorrt_options(engine, cache)))
        try:
            self._session = _session(network, name, onnxruntime.SessionOptions(), 1, providers)
        except ModelRefused as refused:
            # The reference tells whether the file is a network; here it may be the card, its driver or an option.
            raise EngineUnusable(f"{engine.words} does not start: {refused.__cause__}") from refused
        if chosen not in self._session.get_providers():
            # ONNX Runtime goes on with the next provider when the libraries of one are missing, and says so in its log.
            raise EngineUnusable(f"{engine.words}: its libraries do not start; see the worker's log")
        self._input_name, self.input_shape, self.output_shape = _shapes(self._session, name)
        self._output_name: str = self._session.get_outputs()[0].name

    def run(self, tiles: Array) -> Array:
        """Map normalised channels (B, channels, z, y, x) to logits (B, classes, z, y, x), both on the GPU.

        Raises:
            OutOfMemory: the GPU's memory does not hold it.
        """
        classes = cast(int, self.output_shape[1])
        logits = self._arrays.empty((len(tiles), classes, *tiles.shape[2:]), "float32")
        step = len(tiles) if _is_open(self.input_shape) else 1
        for first in range(0, len(tiles), step):
            self._run(tiles[first : first + step], logits[first : first + step])
        return logits

    def _run(self, tiles: Array, logits: Array) -> None:
        """Let ONNX Runtime read and write torch's memory at its addresses: nothing is copied."""
        tiles = tiles.contiguous()
        binding = self._session.io_binding()
        there = ("cuda", self._device, np.float32)
        binding.bind_input(self._input_name, *there, tuple(tiles.shape), tiles.data_ptr())
        binding.bind_output(self._output_name, *there, tuple(logits.shape), logits.data_ptr())
        self._arrays.wait()  # the two libraries queue work on streams of their own
        try:
            self._session.run_with_iobinding(binding)
        except ERRORS as error:
            if isinstance(failure := _out_of_memory_or(error), OutOfMemory):
                raise failure from error
            raise EngineUnusable(f"{self.engine} failed: {error}") from error
        binding.synchronize_outputs()


def _cuda_options(engine: Engine) -> dict[str, str]:
    return {
        "device_id": str(engine.device_number),
        # Tries every algorithm at the first run of a shape; tiles have one shape. DEFAULT was seen four times slower.
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        # Otherwise that search takes as much workspace as there is: 5 GB where 0.6 GB do (onnxruntime issue 7612).
        "cudnn_conv_use_max_workspace": "0",
        # The arena takes what is asked for, not the next power of two.
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": "0",  # ten bits of mantissa are not what a manifest calls float32
    }


def _tensorrt_options(engine: Engine, cache: Path | None) -> dict[str, str]:
    options = {
        "device_id": str(engine.device_number),
        "trt_fp16_enable": str(engine.precision == "float16"),
        "trt_bf16_enable": str(engine.precision == "bfloat16"),
    }
    if cache is not None:
        # Building takes minutes for each fold.
        cache.mkdir(parents=True, exist_ok=True)
        options |= {"trt_engine_cache_enable": "True", "trt_engine_cache_path": str(cache)}
    return options


def _session(
    network: bytes, name: str, options: Any, threads: int, providers: Sequence[Any]
) -> onnxruntime.InferenceSession:
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A warm session waits between cases; spinning threads would burn a core for nothing.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        # Loaded from bytes, so that a network cannot name further files (ONNX external data) to be read.
        return onnxruntime.InferenceSession(network, options, providers=providers)
    except ERRORS as error:
        if isinstance(failure := _out_of_memory_or(error), OutOfMemory):
            raise failure from error
        raise ModelRefused(
            Reason.MODEL_INVALID, f"{name} is no network that ONNX Runtime can run; publish it again"
        ) from error


def _shapes(session: onnxruntime.InferenceSession, name: str) -> tuple[str, Shape, Shape]:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise ModelRefused(
            Reason.MODEL_INVALID,
            f"{name} has {len(inputs)} inputs and {len(outputs)} outputs; one of each is needed",
        )
    return inputs[0].name, tuple(inputs[0].shape), tuple(outputs[0].shape)


def _is_open(input_shape: Shape) -> bool:
    """Whether the network takes any number of tiles at once."""
    return not isinstance(input_shape[0], int)


def _out_of_memory_or(error: Exception) -> Exception:
    said = str(error).casefold()
    return OutOfMemory(str(error)) if any(sign in said for sign in SIGNS_OF_NO_MEMORY) else error
