"""ONNX: a graph of standard operations and their tensors, of one fixed tile, in one file.

An ONNX file cannot execute code of its own, but it can ask for operators of a shared library (custom domains), for
other files of the machine (external data) and for any amount of work (loops). None of these is taken.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, external_data_helper, numpy_helper

from appliance.errors import ModelRefused, Reason
from appliance.importing.completing import merged
from appliance.importing.converted import Converted, ImportRequest, Member
from appliance.importing.sources import inside

TITLE = "ONNX"

_MAX_BYTES = 2**31 - 2**20
_MAX_NODES = 20_000
_MAX_VALUES = 2**29
"""Numbers in all tensors; as float32 they fill the one file that they have to fit in."""
_STANDARD = {"", "ai.onnx"}
_OPERATIONS = frozenset(
    """
    Abs Add And ArgMax AveragePool BatchNormalization Cast CastLike Ceil Clip Concat Constant ConstantOfShape Conv
    ConvTranspose Cos DepthToSpace Div Dropout Einsum Elu Equal Erf Exp Expand Flatten Floor Gather GatherElements
    GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GroupNormalization HardSigmoid HardSwish
    Identity InstanceNormalization LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax MatMul Max MaxPool Mean
    Min Mish Mod Mul Neg Not Or PRelu Pad Pow Range Reciprocal ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare ReduceL2 Relu Reshape Resize Round ScatterElements ScatterND Selu Shape Sigmoid Sign Sin Size Slice
    Softmax Softplus SpaceToDepth Split Sqrt Squeeze Sub Sum Swish Tanh Tile Transpose Trilu Unsqueeze Upsample Where
    Xor
    """.split()  # noqa: SIM905 - a list of words reads best as words
)
"""What convolutional and attention networks are made of; no control flow, no chance, no texts, no sequences."""


def recognises(path: Path) -> bool:
    """An ONNX file, or a folder with ONNX files at its top."""
    return bool(_files(path))


def read(path: Path, request: ImportRequest) -> Converted:
    """Read the networks; the manifest is what the request says, and the tile of the file where that is fixed.

    Raises:
        ModelRefused: MODEL_UNSAFE for other domains, other files or control flow; MODEL_INVALID for the rest.
    """
    values = merged({}, request.manifest or {})
    root, files = (path if path.is_dir() else path.parent), _files(path)
    models = [_checked(file, root) for file in files]
    tile = _fixed_tile(models[0], values)
    channels, classes = len(values.get("input", {}).get("channels", ())), len(values.get("classes", ()))
    members = tuple(
        Member(None, file.name, fixed(model, (1, channels, *tile), (1, classes, *tile), file))
        for file, model in zip(files, models, strict=True)
    )
    notes = ("The networks were taken as they are; only their input and output were fixed to one tile.",)
    return Converted({"input": {"tile": list(tile)}}, members, notes)


def read_network(path: Path, root: Path, manifest: Any) -> bytes:
    """One ONNX file that belongs to a manifest of ours, checked, as one message.

    Raises:
        ModelRefused: as `read`.
    """
    tile, channels = tuple(manifest["input"]["tile"]), len(manifest["input"]["channels"])
    return fixed(_checked(path, root), (1, channels, *tile), (1, len(manifest["classes"]), *tile), path)


def fixed(model: onnx.ModelProto, taken: tuple[int, ...], given: tuple[int, ...], path: Path) -> bytes:
    """The model with these shapes of input and output in place of open ones.

    Raises:
        ModelRefused: MODEL_INVALID if it has other shapes.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise _invalid(path, f"has {len(inputs)} inputs and {len(model.graph.output)} outputs, one of each is needed")
    for value, shape in ((inputs[0], taken), (model.graph.output[0], given)):
        _fix(value, shape, path)
    del model.graph.value_info[:]  # what was worked out for the open shapes
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        first = (str(error).splitlines() or ["no reason given"])[0]
        raise _invalid(path, f"is not valid ONNX for this tile ({first[:160]})") from error
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix.lower() == ".onnx")
    return [path] if path.suffix.lower() == ".onnx" else []


def _checked(path: Path, root: Path) -> onnx.ModelProto:
    """The model with all its tensors inside, of standard operations alone."""
    if path.stat().st_size > _MAX_BYTES:
        raise _invalid(path, "has more than 2 GiB")
    try:
        model = onnx.load_model(path, load_external_data=False)
    except DecodeError as error:
        raise _invalid(path, "is no ONNX, or damaged") from error
    if not model.graph.node:
        raise _invalid(path, "holds no network")
    domains = {entry.domain for entry in model.opset_import} | {node.domain for node in model.graph.node}
    if foreign := domains - _STANDARD:
        raise _unsafe(path, f"needs operators of its own ({', '.join(sorted(foreign))[:120]})")
    if len(model.functions) or len(model.training_info):
        raise _unsafe(path, "defines functions of its own; export it without them")
    _check_nodes(model, path)
    tensors = list(_tensors(model))
    if sum(int(np.prod(tensor.dims, dtype=np.float64)) for tensor in tensors) > _MAX_VALUES:
        raise _invalid(path, "claims more values than fit into one file")
    _inline(tensors, path, root)
    for tensor in tensors:
        _check_values(tensor, path)
    return model


def _check_nodes(model: onnx.ModelProto, path: Path) -> None:
    if len(model.graph.node) > _MAX_NODES:
        raise _invalid(path, f"has more than {_MAX_NODES} operations")
    if len(model.graph.sparse_initializer):
        raise _invalid(path, "holds sparse tensors")
    if unknown := {node.op_type for node in model.graph.node} - _OPERATIONS:
        raise _unsafe(path, f"holds operations that no segmentation network needs ({', '.join(sorted(unknown))[:160]})")
    if any(attribute.HasField("g") or attribute.graphs for node in model.graph.node for attribute in node.attribute):
        raise _unsafe(path, "holds graphs within graphs")


def _tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    yield from model.graph.initializer
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _inline(tensors: Iterable[TensorProto], path: Path, root: Path) -> None:
    """Fetch what lies in files beside the model, within the folder that is imported, into the model."""
    for tensor in tensors:
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        named = {entry.key: entry.value for entry in tensor.external_data}
        beside = inside(path.parent, named.get("location", ""))
        if not beside.resolve().is_relative_to(root.resolve()):
            raise _unsafe(path, "names a file outside of the model")
        try:
            external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
        except (onnx.checker.ValidationError, OSError, ValueError) as error:
            raise _invalid(path, f"names {beside.name}, which does not hold what it should") from error
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")


def _check_values(tensor: TensorProto, path: Path) -> None:
    try:
        values = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError) as error:
        raise _invalid(path, f"holds a tensor {tensor.name[:80]!r} that is not what it says") from error
    if values.dtype.kind not in "fiub":
        raise _invalid(path, f"holds {tensor.name[:80]!r}, which is no plain number")
    # A single infinity is how attention masks and maxima begin; it is no weight.
    if values.dtype.kind == "f" and not np.isfinite(values).all() and values.size > 1:
        raise _invalid(path, f"holds weights that are no numbers (NaN or infinite) in {tensor.name[:80]!r}")


def _fixed_tile(model: onnx.ModelProto, values: dict[str, Any]) -> tuple[int, ...]:
    """What the request says, else the tile that the file is fixed to."""
    asked = values.get("input", {}).get("tile")
    if asked:
        return tuple(asked)
    constants = {tensor.name for tensor in model.graph.initializer}
    sides = [
        axis.dim_value
        for value in model.graph.input
        if value.name not in constants
        for axis in value.type.tensor_type.shape.dim
    ][2:]
    if len(sides) != 3 or not all(sides):
        raise ModelRefused(Reason.MODEL_INVALID, "the network takes any tile; add input.tile to the import")
    return tuple(sides)


def _fix(value: Any, shape: tuple[int, ...], path: Path) -> None:
    tensor = value.type.tensor_type
    if tensor.elem_type != TensorProto.FLOAT:
        raise _invalid(path, f"has {value.name[:40]!r} in another precision than float32; export it in float32")
    found = [axis.dim_value for axis in tensor.shape.dim]
    fits = len(found) == len(shape) and all(has in (0, wanted) for has, wanted in zip(found, shape, strict=True))
    if found and not fits:
        shown = "x".join(str(side or "any") for side in found)
        wanted = "x".join(str(side) for side in shape)
        raise _invalid(
            path, f"has {value.name[:40]!r} of {shown}, the manifest's channels, classes and tile mean {wanted}"
        )
    del tensor.shape.dim[:]
    for side in shape:
        tensor.shape.dim.add().dim_value = side


def _invalid(path: Path, what: str) -> ModelRefused:
    return ModelRefused(Reason.MODEL_INVALID, f"{path.name} {what}; nothing was imported")


def _unsafe(path: Path, what: str) -> ModelRefused:
    return ModelRefused(Reason.MODEL_UNSAFE, f"{path.name} {what}; nothing was imported")
