from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from appliance.errors import ModelRefused, Reason  # noqa: E402
from appliance.importing.converted import ImportRequest  # noqa: E402
from appliance.importing.onnx_model import read  # noqa: E402

TILE = (4, 6, 8)
INPUT = {"tile": list(TILE), "channels": [{"offset_hu": 0.0, "scale_hu": 1.0, "clip": [0.0, 1.0]}]}
REQUEST = ImportRequest(manifest={"classes": ["background", "a", "b"], "input": INPUT})


def small_model(
    op: str = "Conv", domain: str = "", batch: Any = "batch", elem: int = TensorProto.FLOAT, **attributes: Any
) -> Any:
    weights = np.random.default_rng(1).normal(size=(3, 1, 1, 1, 1)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "w"], ["y"], domain=domain, **attributes)],
        "g",
        [helper.make_tensor_value_info("x", elem, [batch, 1, *TILE])],
        [helper.make_tensor_value_info("y", elem, [batch, 3, *TILE])],
        [numpy_helper.from_array(weights, "w")],
    )
    opsets = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def saved(folder: Path, model: Any) -> Path:
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder / "model.onnx"


def test_open_sizes_are_fixed_to_the_tile(tmp_path: Path) -> None:
    member = read(saved(tmp_path, small_model()), REQUEST).members[0]
    graph = onnx.load_model_from_string(member.onnx).graph
    sides = [[axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in (*graph.input, *graph.output)]
    assert sides == [[1, 1, *TILE], [1, 3, *TILE]]


def test_tensors_in_a_file_beside_it_are_taken_in(tmp_path: Path) -> None:
    inner = read(saved(tmp_path, small_model()), REQUEST).members[0].onnx
    onnx.save_model(
        small_model(), tmp_path / "spread.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    (tmp_path / "model.onnx").unlink()
    assert (tmp_path / "weights.bin").is_file()
    assert read(tmp_path, REQUEST).members[0].onnx == inner


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "a/../../weights.bin"])
def test_tensors_in_files_elsewhere_are_refused(tmp_path: Path, location: str) -> None:
    model = small_model()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    with pytest.raises(ModelRefused) as caught:
        read(saved(tmp_path, model), REQUEST)
    assert caught.value.reason is Reason.MODEL_UNSAFE


def _with_nan(model: Any) -> Any:
    values = numpy_helper.to_array(model.graph.initializer[0]).copy()
    values[1] = np.nan
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "w"))
    return model


def _with_loop(model: Any) -> Any:
    node = helper.make_node("Loop", ["", ""], ["z"], body=helper.make_graph([], "body", [], []))
    model.graph.node.append(node)
    return model


def _with_function(model: Any) -> Any:
    model.functions.append(
        helper.make_function("mine", "f", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], [])
    )
    return model


def _claiming(model: Any) -> Any:
    model.graph.initializer[0].dims[:] = [2**20, 2**20]
    return model


def _of_another_shape(model: Any) -> Any:
    model.graph.initializer[0].dims[:] = [3, 1, 1, 1, 2]
    return model


@pytest.mark.parametrize(
    ("make", "reason", "word"),
    [
        (lambda: small_model("Evil", "com.evil"), Reason.MODEL_UNSAFE, "com.evil"),
        (lambda: small_model("RandomNormalLike"), Reason.MODEL_UNSAFE, "RandomNormalLike"),
        (lambda: _with_loop(small_model()), Reason.MODEL_UNSAFE, "Loop"),
        (lambda: _with_function(small_model()), Reason.MODEL_UNSAFE, "functions"),
        (lambda: _with_nan(small_model()), Reason.MODEL_INVALID, "no numbers"),
        (lambda: _claiming(small_model()), Reason.MODEL_INVALID, "claims"),
        (lambda: small_model(elem=TensorProto.FLOAT16), Reason.MODEL_INVALID, "float32"),
        (lambda: small_model(batch=4), Reason.MODEL_INVALID, "4x1x4x6x8"),
        (lambda: _of_another_shape(small_model()), Reason.MODEL_INVALID, "not what it says"),
    ],
)
def test_what_is_more_or_other_than_a_network_is_refused(
    tmp_path: Path, make: Callable[[], Any], reason: Reason, word: str
) -> None:
    with pytest.raises(ModelRefused, match=word) as caught:
        converted = read(saved(tmp_path, make()), REQUEST)
        pytest.fail(f"{converted.members[0].came_from} was taken")
    assert caught.value.reason is reason


def test_a_class_map_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    request = ImportRequest(manifest={"classes": ["background", "a"], "input": INPUT})
    with pytest.raises(ModelRefused, match="classes"):
        read(saved(tmp_path, small_model()), request)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, small_model())
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ModelRefused):
        read(path, REQUEST)
