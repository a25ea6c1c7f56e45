import subprocess
import sys
from pathlib import Path

import pytest

from appliance.segmentation.backends.engine import EngineUnusable
from tests.support.model_packages import make_threshold_package

pytest.importorskip("openvino")

from appliance.segmentation.backends.openvino_network import OpenVinoNetwork


def test_a_file_that_is_no_network_cannot_be_used_and_the_sentence_is_short() -> None:
    with pytest.raises(EngineUnusable) as caught:
        OpenVinoNetwork(b"not a network", threads=1)
    assert "\n" not in str(caught.value)


def test_a_network_cannot_make_it_read_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx = pytest.importorskip("onnx")
    folder = make_threshold_package(tmp_path, tile=(4, 5, 6))
    model = onnx.load(folder / "fold_0.onnx")
    onnx.save_model(
        model, tmp_path / "spread.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EngineUnusable, match="other files"):
        OpenVinoNetwork((tmp_path / "spread.onnx").read_bytes(), threads=1)


def test_nothing_that_reports_to_its_maker_is_loaded_with_it() -> None:
    script = (
        "import sys, appliance.segmentation.backends.openvino_network; "
        "print([name for name in sys.modules if name.startswith('openvino_telemetry.')])"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
