"""Networks as ONNX of one fixed tile, and how far the exported one answers as the first did."""

import io
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

Tile = NDArray[np.float32]
"""(1, channels, z, y, x)."""

_OPSET = 18
_LARGEST_MODEL_BYTES = 2**31 - 2**20
"""A protobuf message has less than 2 GiB, and an ONNX file that is one message needs no other file beside it."""


class NotExportable(Exception):
    """The network cannot be written as one ONNX file."""


@dataclass(frozen=True)
class Differences:
    """How two networks' answers to the same tiles differ.

    Attributes:
        tiles: how many were asked.
        largest_logit: greatest difference of a logit.
        largest_allowed: what rounding may make of it, from the size of the logits.
        changed_labels: share of voxels whose likeliest class is another.
    """

    tiles: int
    largest_logit: float
    largest_allowed: float
    changed_labels: float


def to_onnx(network: nn.Module, tile: tuple[int, int, int, int, int]) -> bytes:
    """The network as ONNX: one input `tile`, one output `logits`, both of fixed shape, tensors inside.

    Args:
        network: in evaluation mode; a TorchScript module may be given too.
        tile: shape (1, channels, z, y, x) of its input.

    Raises:
        NotExportable: torch cannot say it in ONNX, or it is larger than one file of it may be.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    if size > _LARGEST_MODEL_BYTES:
        raise NotExportable(f"its weights have {size / 2**30:.1f} GiB, an ONNX file less than 2")
    try:
        with warnings.catch_warnings():
            # torch's own exporters meet torch's own deprecations.
            warnings.simplefilter("ignore")
            scripted = isinstance(network, torch.jit.ScriptModule)
            model = _from_script(network, tile) if scripted else _from_module(network, tile)
    except (RuntimeError, TypeError, ValueError, torch.onnx.errors.OnnxExporterError) as error:
        cause = str(error.__cause__ or error).strip().splitlines() or ["no reason given"]
        raise NotExportable(f"torch cannot write it as ONNX ({cause[0][:200]})") from error
    exported: bytes = _without_traces(model).SerializeToString(deterministic=True)
    return exported


def compare(answer: Callable[[Tile], Tile], model: bytes, tiles: Iterable[Tile]) -> Differences:
    """Ask the first network and the exported one for the same tiles.

    Args:
        answer: what the first network makes of a tile: logits (1, classes, z, y, x).
        model: the exported one; it runs in ONNX Runtime on the CPU.
        tiles: at least one.
    """
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    count = voxels = changed = 0
    largest = scale = 0.0
    for tile in tiles:
        expected, found = answer(tile), session.run(None, {name: tile})[0]
        if expected.shape != found.shape:
            return Differences(count + 1, np.inf, 0.0, 1.0)
        count, voxels = count + 1, voxels + expected[0, 0].size
        difference = float(np.abs(found - expected).max())
        largest = max(largest, difference if np.isfinite(difference) else np.inf)
        scale = max(scale, float(np.abs(expected).max()))
        changed += int((found.argmax(1) != expected.argmax(1)).sum())
    return Differences(count, largest, 1e-3 * max(1.0, scale), changed / voxels)


def answering(network: nn.Module) -> Callable[[Tile], Tile]:
    """The network as a function of numpy's arrays."""

    def answer(tile: Tile) -> Tile:
        with torch.no_grad():
            logits: Tile = network(torch.from_numpy(tile)).numpy()
            return logits

    return answer


def _from_module(network: nn.Module, tile: tuple[int, ...]) -> onnx.ModelProto:
    program = torch.onnx.export(
        network,
        (torch.zeros(tile),),
        opset_version=_OPSET,
        input_names=["tile"],
        output_names=["logits"],
        verbose=False,
    )
    if program is None:
        raise NotExportable("torch exported nothing")
    return program.model_proto


def _from_script(network: nn.Module, tile: tuple[int, ...]) -> onnx.ModelProto:
    # The newer exporter traces Python, of which TorchScript has none left; only the former one reads its graphs.
    file: Any = io.BytesIO()
    torch.onnx.export(
        network,
        (torch.zeros(tile),),
        file,
        opset_version=_OPSET,
        input_names=["tile"],
        output_names=["logits"],
        dynamo=False,
    )
    return onnx.load_model_from_string(file.getvalue())


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without the exporter's notes, which hold the paths of the machine that it was made on."""
    del model.metadata_props[:]
    for part in (model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info):
        part.doc_string = ""
        del part.metadata_props[:]
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
    return model
