"""Which engines can be tried on this box, for one model. Libraries are imported only where they may be used."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from appliance.segmentation.arrays import Arrays, host_arrays
from appliance.segmentation.backends import onnx_network
from appliance.segmentation.backends.engine import Engine, Precision
from appliance.segmentation.backends.network import Network
from appliance.segmentation.model_package import ModelPackage
from appliance.segmentation.parity import Candidate

NVIDIA_DRIVER = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""One of these is there where a GPU of NVIDIA's is; to look is quicker than to import torch."""

PROCESSOR_NAME = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Wishes:
    """What this box is set to.

    Attributes:
        threads: how many CPU threads a run may use; 0 takes all cores.
        device: "auto", "cpu", "cuda" or "cuda:1".
        engines: names of those that may be used, in the order in which they are preferred; empty for whatever is
            fastest, but for TensorRT, which takes minutes to prepare each fold.
        cache: a folder of our own where TensorRT keeps what it prepared.
        memory_share: how much of the host's free memory a case may be planned with.
    """

    threads: int = 0
    device: str = "cpu"
    engines: tuple[str, ...] = ()
    cache: Path | None = None
    memory_share: float = 1.0


def gpus() -> dict[str, str]:
    """GPUs that can be used, by device ("cuda:0"), with their names; none without the libraries of the extra `gpu`."""
    if not any(path.exists() for path in NVIDIA_DRIVER) or find_spec("torch") is None:
        return {}
    from appliance.segmentation.backends import torch_network

    return torch_network.gpus()


def reference(package: ModelPackage, threads: int) -> Candidate:
    """ONNX Runtime on the CPU in float32: what every installation has, and what the others are compared with."""
    return _onnx(package, threads, Engine("onnxruntime", onnx_network.version(), device_name=_processor()))


def candidates(package: ModelPackage, wishes: Wishes) -> list[Candidate]:
    """All engines beside the reference that may be tried here: in the order wished for, or as fast as is expected."""
    found = [*_on_gpus(package, wishes), *_on_host(package, wishes.threads)]
    allowed = wishes.engines or ("onnxruntime", "openvino", "torch")
    found = [one for one in found if one.engine.name in allowed]
    return sorted(found, key=lambda one: allowed.index(one.engine.name)) if wishes.engines else found


def _on_host(package: ModelPackage, threads: int) -> Iterator[Candidate]:
    if find_spec("openvino") is not None:
        from appliance.segmentation.backends import openvino_network

        engine = Engine("openvino", openvino_network.version(), device_name=_processor())
        alone = len(package.manifest.folds) == 1
        yield Candidate(
            engine,
            host_arrays(),
            lambda fold: openvino_network.OpenVinoNetwork(package.read_network(fold), threads, keep_workspace=alone),
        )
    if _has_tensors(package) and find_spec("torch") is not None:
        from appliance.segmentation.backends import torch_network

        yield _torch(
            package, threads, Engine("torch", torch_network.version(), device_name=_processor()), host_arrays()
        )


def _on_gpus(package: ModelPackage, wishes: Wishes) -> Iterator[Candidate]:
    there = {} if wishes.device == "cpu" else gpus()
    chosen = next(iter(there), "") if wishes.device in {"auto", "cuda"} else wishes.device
    if chosen not in there:
        return
    from appliance.segmentation.backends import torch_network

    arrays, name = torch_network.gpu_arrays(chosen), there[chosen]
    halves = [one for one in package.manifest.precisions if one == "float16" or torch_network.has_bfloat16(chosen)]
    precisions: list[Precision] = [*halves, "float32"]
    for precision in precisions:
        if "tensorrt" in onnx_network.gpu_providers():
            version = onnx_network.version()
            engine = Engine("tensorrt", version, chosen, name, precision)
            yield _onnx_on_gpu(package, engine, arrays, wishes.cache)
        if _has_tensors(package):
            engine = Engine("torch", torch_network.version(), chosen, name, precision)
            yield _torch(package, 0, engine, arrays)
    if "onnxruntime" in onnx_network.gpu_providers():
        yield _onnx_on_gpu(package, Engine("onnxruntime", onnx_network.version(), chosen, name), arrays)


def _has_tensors(package: ModelPackage) -> bool:
    return all(fold.tensors is not None for fold in package.manifest.folds)


def _onnx(package: ModelPackage, threads: int, engine: Engine) -> Candidate:
    def load(fold: int) -> Network:
        return onnx_network.OnnxNetwork(package.read_network(fold), package.manifest.folds[fold].file, threads)

    return Candidate(engine, host_arrays(), load)


def _onnx_on_gpu(package: ModelPackage, engine: Engine, arrays: Arrays, cache: Path | None = None) -> Candidate:
    from appliance.segmentation.backends import torch_network

    def load(fold: int) -> Network:
        name = package.manifest.folds[fold].file
        return onnx_network.OnnxGpuNetwork(package.read_network(fold), name, engine, arrays, cache)

    return Candidate(engine, arrays, load, lambda: torch_network.free_bytes(engine.device)[0])


def _torch(package: ModelPackage, threads: int, engine: Engine, arrays: Arrays) -> Candidate:
    from appliance.segmentation.backends import torch_network

    def load(fold: int) -> Network:
        name = package.manifest.folds[fold].tensors or ""
        return torch_network.TorchNetwork(package.read_tensors(fold), name, package.manifest, engine, threads)

    if engine.is_on_host:
        return Candidate(engine, arrays, load)
    return Candidate(engine, arrays, load, lambda: torch_network.free_bytes(engine.device)[0])


def _processor() -> str:
    """Return the processor's own name: what was measured on another one says little about this one."""
    try:
        lines = PROCESSOR_NAME.read_text().splitlines()
    except OSError:
        return "processor"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "processor")
