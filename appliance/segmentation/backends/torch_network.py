"""torch, on the CPU or a GPU: any batch, and half precision where the model allows it. Only here is torch imported."""

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import array_api_compat
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from appliance.errors import ModelRefused, Reason
from appliance.segmentation.arrays import Arrays, to_host
from appliance.segmentation.backends.engine import Engine, EngineUnusable
from appliance.segmentation.backends.network import Array, OutOfMemory
from appliance.segmentation.manifest import Manifest
from models.registry import UnknownNetwork, build

GPU_CHUNK_BYTES = 256 * 1024 * 1024
"""How much of a tile or of finished planes a GPU works on at once: enough to keep it busy, little beside the rest."""

NO_MEMORY_ON_THE_HOST = ("can't allocate memory", "could not create a primitive", "could not create a memory")
"""torch has an error of its own for a GPU that is full, but not for the processor's memory."""


def version() -> str:
    """Return the version of torch."""
    return str(torch.__version__)


def gpus() -> dict[str, str]:
    """Name of every GPU that torch can use, by device: "cuda:0" and so on."""
    return {f"cuda:{number}": torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())}


def has_bfloat16(device: str) -> bool:
    """Whether a GPU computes in bfloat16 itself, instead of pretending to."""
    return torch.cuda.get_device_capability(torch.device(device)) >= (8, 0)


def gpu_arrays(device: str) -> Arrays:
    """Torch's arrays on a GPU."""
    return Arrays(
        array_api_compat.array_namespace(torch.empty(0)),
        device,
        chunk_bytes=GPU_CHUNK_BYTES,
        memory_errors=(MemoryError, torch.OutOfMemoryError),
        wait=lambda: torch.cuda.synchronize(device),
    )


def free_bytes(device: str) -> tuple[int, int]:
    """Free memory of a GPU, with what torch keeps without using it, and all that it has."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free, total = torch.cuda.mem_get_info(device)
    return free + kept, total


class TorchNetwork:
    """One fold as a torch module.

    Args:
        tensors: the content of the safetensors file.
        name: of the file, for refusals.
        manifest: which network takes them, and its tile and classes.
        engine: the device and the precision.
        threads: how many threads the CPU may use; 0 leaves torch's own number.

    Raises:
        ModelRefused: MODEL_INVALID, if the tensors do not fit the manifest's network or it does not answer as it says.
        OutOfMemory: the device does not hold the network, or one tile.
    """

    def __init__(self, tensors: bytes, name: str, manifest: Manifest, engine: Engine, threads: int = 0) -> None:
        self.engine = engine.words
        self._device, self._precision = engine.device, engine.precision
        self.input_shape: tuple[int | str | None, ...] = ("batch", len(manifest.input.channels), *manifest.input.tile)
        self.output_shape: tuple[int | str | None, ...] = ("batch", len(manifest.classes), *manifest.input.tile)
        if threads:
            torch.set_num_threads(threads)
        with self._watched():
            self._module, self._memory_format = _prepared(_loaded(tensors, name, manifest), engine)
        trial = torch.zeros((1, *cast(tuple[int, ...], self.input_shape[1:])), device=self._device)
        answered = tuple(self.run(trial).shape)
        if answered[1:] != self.output_shape[1:]:
            raise ModelRefused(
                Reason.MODEL_INVALID,
                f"{name}: the network answers {answered} to a tile, the manifest says {self.output_shape}; "
                "publish the package again",
            )

    def run(self, tiles: Array) -> Array:
        """Map normalised channels (B, channels, z, y, x) to logits (B, classes, z, y, x), where the tiles are.

        Raises:
            OutOfMemory: the device does not hold it.
        """
        given = torch.as_tensor(tiles, device=self._device)
        with self._watched(), self._setting():
            logits = self._module(given.contiguous(memory_format=self._memory_format)).float().contiguous()
        return to_host(logits) if self._device == "cpu" and not isinstance(tiles, Tensor) else logits

    @contextmanager
    def _setting(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())  # what inference_mode returns may not be written to
            if self._device != "cpu":
                # One scan, one answer: without a search for algorithms, and without ten-bit mantissas in float32.
                flags = torch.backends.cudnn.flags(benchmark=False, deterministic=True, allow_tf32=False)
                stack.enter_context(flags)
                if self._precision != "float32":
                    stack.enter_context(torch.autocast("cuda", dtype=getattr(torch, self._precision)))
            yield

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Tell memory that ran out from anything else that torch raises."""
        try:
            yield
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise OutOfMemory(str(error)) from error
        except RuntimeError as error:
            if any(sign in str(error) for sign in NO_MEMORY_ON_THE_HOST):
                raise OutOfMemory(str(error)) from error
            raise EngineUnusable(f"{self.engine} failed: {str(error).partition(chr(10))[0]}") from error


def _loaded(tensors: bytes, name: str, manifest: Manifest) -> nn.Module:
    if manifest.network is None:
        raise ModelRefused(Reason.MODEL_INVALID, f"{name}: the manifest names no network that takes these tensors")
    try:
        module = build(manifest.network.name, manifest.network.arguments)
        module.load_state_dict(_complete(safetensors.torch.load(tensors), module))
    except UnknownNetwork as error:
        raise ModelRefused(Reason.MODEL_INVALID, f"{name}: {error}; publish the package again") from error
    except (RuntimeError, safetensors.SafetensorError, json.JSONDecodeError) as error:
        raise ModelRefused(
            Reason.MODEL_INVALID,
            f"{name} does not hold the tensors of the network {manifest.network.name}; publish the package again",
        ) from error
    return module.eval().requires_grad_(requires_grad=False)


def _complete(tensors: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Add the counters of batch normalisation, which only training reads and a package may leave out."""
    counters = {name: value for name, value in module.state_dict().items() if name.endswith("num_batches_tracked")}
    return {**counters, **tensors}


def _prepared(module: nn.Module, engine: Engine) -> tuple[nn.Module, torch.memory_format]:
    """Fold batch normalisation into convolutions and choose how voxels lie in memory, as measured on each device."""
    has_instance_norm = any(isinstance(layer, nn.InstanceNorm3d) for layer in module.modules())
    module = with_folded_norms(module)
    # On a CPU, channels last makes convolutions 1.8 times faster and instance normalisation slower than it gains.
    channels_last = not engine.is_on_host or not has_instance_norm
    memory_format = torch.channels_last_3d if channels_last else torch.contiguous_format
    module = module.to(engine.device)
    return cast(nn.Module, module.to(memory_format=memory_format)), memory_format  # type: ignore[call-overload]


def with_folded_norms(module: nn.Module) -> nn.Module:
    """Put every batch normalisation that follows one convolution into that convolution's weights.

    A network whose code cannot be traced is returned as it is.
    """
    try:
        traced = torch.fx.symbolic_trace(copy.deepcopy(module))
    except (torch.fx.proxy.TraceError, TypeError):
        return module
    layers: dict[str, Any] = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        source = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(source, torch.fx.Node) or source.op != "call_module" or len(source.users) > 1:
            continue
        convolution, norm = layers[str(source.target)], layers[str(node.target)]
        if isinstance(norm, nn.BatchNorm3d) and isinstance(convolution, nn.Conv3d | nn.ConvTranspose3d):
            transposed = isinstance(convolution, nn.ConvTranspose3d)
            traced.set_submodule(str(source.target), fuse_conv_bn_eval(convolution, norm, transpose=transposed))
            node.replace_all_uses_with(source)
            traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return cast(nn.Module, traced)
