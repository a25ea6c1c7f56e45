from pathlib import Path

import numpy as np
import pytest

from appliance.errors import ModelRefused, Reason
from appliance.segmentation.backends.onnx_network import OnnxNetwork
from tests.support.model_packages import make_threshold_package, threshold_logits

TILE = (4, 5, 6)


def test_a_network_answers_with_the_logits_of_its_graph(tmp_path: Path) -> None:
    folder = make_threshold_package(tmp_path, tile=TILE, fold_shifts_hu=(7.0,))
    network = OnnxNetwork((folder / "fold_0.onnx").read_bytes(), "fold_0.onnx", threads=1)
    hu = np.random.default_rng(2).uniform(-1000, 1500, TILE)
    logits = network.run((hu / 1000).astype(np.float32)[np.newaxis, np.newaxis])
    assert (network.input_shape, network.output_shape) == ((1, 1, *TILE), (1, 3, *TILE))
    assert logits.dtype == np.float32
    assert np.allclose(logits[0], threshold_logits(hu, [-293.0, 257.0], 0.02), atol=1e-3)


def test_a_file_that_is_no_network_is_refused() -> None:
    with pytest.raises(ModelRefused) as caught:
        OnnxNetwork(b"not a network", "fold_0.onnx", threads=1)
    assert caught.value.reason is Reason.MODEL_INVALID
    assert "fold_0.onnx" in caught.value.sentence


def test_a_network_cannot_make_us_read_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx = pytest.importorskip("onnx")
    folder = make_threshold_package(tmp_path, tile=TILE)
    model = onnx.load(folder / "fold_0.onnx")
    onnx.save_model(
        model, tmp_path / "spread.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelRefused):
        OnnxNetwork((tmp_path / "spread.onnx").read_bytes(), "spread.onnx", threads=1)
