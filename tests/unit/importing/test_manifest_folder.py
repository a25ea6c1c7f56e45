import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from appliance.errors import ModelRefused, Reason  # noqa: E402
from appliance.importing.converted import ImportRequest  # noqa: E402
from appliance.importing.manifest_folder import read, recognises  # noqa: E402
from models.registry import build  # noqa: E402
from tests.support.foreign_models import make_manifest_folder  # noqa: E402
from tests.support.model_packages import make_threshold_package  # noqa: E402


def changed(folder: Path, **values: Any) -> Path:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, **values}))
    return folder


def test_every_fold_is_the_named_network_with_its_own_weights(tmp_path: Path) -> None:
    folder = make_manifest_folder(tmp_path / "model")
    assert recognises(folder)
    converted = read(folder, ImportRequest())
    assert "folds" not in converted.manifest
    torch.manual_seed(1)
    second = build("unet3d_fast", converted.manifest["network"]["arguments"]).eval()
    tile = torch.randn(1, 1, 8, 8, 8)
    network = converted.members[1].network
    assert network is not None
    with torch.no_grad():
        torch.testing.assert_close(network(tile), second(tile))


def test_a_package_of_onnx_alone_is_taken_too(tmp_path: Path) -> None:
    folder = make_threshold_package(tmp_path / "thresholds", tile=(4, 6, 8))
    members = read(folder, ImportRequest()).members
    assert [member.came_from for member in members] == ["fold_0.onnx", "fold_1.onnx", "fold_2.onnx"]
    assert all(member.onnx for member in members)


@pytest.mark.parametrize(
    ("fault", "reason", "word"),
    [
        ("unknown network", Reason.MODEL_INVALID, "no network 'resnet'"),
        ("other size", Reason.MODEL_INVALID, "does not fit"),
        ("no digest", Reason.MODEL_INVALID, "no digest"),
        ("other digest", Reason.MODEL_ALTERED, "sha256"),
        ("file elsewhere", Reason.MODEL_UNSAFE, "outside"),
        ("no folds", Reason.MODEL_INVALID, "without folds"),
        ("not there", Reason.MODEL_INVALID, "not there"),
        ("no network", Reason.MODEL_INVALID, "without"),
    ],
)
def test_a_manifest_that_does_not_fit_its_files_is_refused(
    tmp_path: Path, fault: str, reason: Reason, word: str
) -> None:
    folder = make_manifest_folder(tmp_path / "model")
    fold = json.loads((folder / "manifest.json").read_text())["folds"][0]
    changes: dict[str, dict[str, Any]] = {
        "unknown network": {"network": {"name": "resnet", "arguments": {}}},
        "other size": {
            "network": {"name": "unet3d_fast", "arguments": {"channels": 1, "classes": 4, "features": [4, 6]}}
        },
        "no digest": {"folds": [{"tensors": fold["tensors"]}]},
        "other digest": {"folds": [{**fold, "tensors_sha256": "0" * 64}]},
        "file elsewhere": {"folds": [{**fold, "tensors": "../fold_0.safetensors"}]},
        "no folds": {"folds": []},
        "not there": {"folds": [{**fold, "tensors": "fold_9.safetensors"}]},
        "no network": {"network": None},
    }
    with pytest.raises(ModelRefused, match=word) as caught:
        read(changed(folder, **changes[fault]), ImportRequest())
    assert caught.value.reason is reason


def test_a_flipped_byte_is_noticed(tmp_path: Path) -> None:
    folder = make_manifest_folder(tmp_path / "model")
    content = bytearray((folder / "fold_1.safetensors").read_bytes())
    content[-10] ^= 1
    (folder / "fold_1.safetensors").write_bytes(content)
    with pytest.raises(ModelRefused) as caught:
        read(folder, ImportRequest())
    assert caught.value.reason is Reason.MODEL_ALTERED
