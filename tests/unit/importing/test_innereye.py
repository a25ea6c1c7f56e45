from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from torch.nn import functional  # noqa: E402

from appliance.errors import ModelRefused, Reason  # noqa: E402
from appliance.importing.converted import ImportRequest  # noqa: E402
from appliance.importing.innereye import read, recognises  # noqa: E402
from tests.support.foreign_models import innereye_state, make_innereye_checkpoint  # noqa: E402

LEVELS = 2


def recomputed(state: dict[str, Any], x: Any) -> Any:
    """What InnerEye-DeepLearning's `UNet3D.forward` computes, written down once more without any module."""
    state = {name.removeprefix("model."): value for name, value in state.items()}

    def norm(name: str, y: Any) -> Any:
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        y = functional.batch_norm(y, mean, var, state[f"{name}.weight"], state[f"{name}.bias"])
        return y.relu()

    def convolved(name: str, y: Any, stride: int = 1) -> Any:
        weight = state[f"{name}.weight"]
        padding = tuple((side - 1) // 2 for side in weight.shape[2:])
        return functional.conv3d(y, weight, stride=stride, padding=padding)

    def layer(name: str, y: Any, stride: int = 1) -> Any:
        return norm(f"{name}.bn1", convolved(f"{name}.conv1", y, stride))

    skips = []
    for number in range(LEVELS + 1):
        x = layer(f"_layers.{number}.block1", x, 1 if number == 0 else 2)
        x = layer(f"_layers.{number}.block2", x) + x
        skips.append(x)
    skips.pop()
    for number in range(LEVELS + 1, 3 * LEVELS + 1, 2):
        up = f"_layers.{number}.upsample_block"
        x = functional.conv_transpose3d(x, state[f"{up}.0.weight"], state[f"{up}.0.bias"], stride=2, padding=1)
        x = norm(f"{up}.1", x)
        join = f"_layers.{number + 1}"
        x = convolved(f"{join}.conv1.conv1", x) + convolved(f"{join}.conv2.conv1", skips.pop())
        x = norm(f"{join}.activation_block.0", x)
        x = layer(f"{join}.block2", x) + x
    return functional.conv3d(x, state["output_layer.weight"], state["output_layer.bias"])


@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 3, 3)])
def test_their_weights_answer_here_as_their_network_does(tmp_path: Path, kernel: tuple[int, int, int]) -> None:
    torch.manual_seed(4)
    state = innereye_state(2, 5, 4, LEVELS, kernel)
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    network = read(tmp_path / "last.ckpt", ImportRequest()).members[0].network
    tile = torch.randn(1, 2, 8, 12, 16)
    with torch.no_grad():
        torch.testing.assert_close(network(tile), recomputed(state, tile), rtol=1e-4, atol=1e-4)


def test_sizes_are_read_off_the_shapes_and_the_window_is_innereyes(tmp_path: Path) -> None:
    converted = read(make_innereye_checkpoint(tmp_path / "last.ckpt"), ImportRequest())
    network = converted.manifest["network"]
    assert network["arguments"] == {"channels": 1, "classes": 3, "first_features": 4, "levels": 3, "kernel": [3, 3, 3]}
    assert converted.manifest["input"]["channels"] == [{"offset_hu": 50.0, "scale_hu": 300.0, "clip": [-1.0, 1.0]}]
    assert converted.manifest["ensemble"] == "mean_softmax"


def test_a_folder_of_checkpoints_is_one_ensemble(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        make_innereye_checkpoint(tmp_path / str(number) / "last.ckpt", seed=number)
    assert recognises(tmp_path)
    members = read(tmp_path, ImportRequest()).members
    assert [member.came_from for member in members] == ["0/last.ckpt", "1/last.ckpt"]


def test_what_lightning_keeps_beside_the_weights_is_never_made(tmp_path: Path, monkeypatch: Any) -> None:
    import sys
    import types

    module = types.ModuleType("pytorch_lightning")
    module.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": module.__name__})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pytorch_lightning", module)
    state = innereye_state(1, 3, 4, LEVELS, (3, 3, 3))
    torch.save({"state_dict": state, "callbacks": {module.ModelCheckpoint: {"best": 0.1}}}, tmp_path / "last.ckpt")
    monkeypatch.delitem(sys.modules, "pytorch_lightning")
    assert read(tmp_path / "last.ckpt", ImportRequest()).members


@pytest.mark.parametrize("damage", ["missing", "added", "shape", "gap", "nan"])
def test_weights_that_are_not_those_of_the_network_are_refused(tmp_path: Path, damage: str) -> None:
    state = innereye_state(1, 3, 4, LEVELS, (3, 3, 3))
    if damage == "missing":
        del state["model._layers.1.block2.conv1.weight"]
    elif damage == "added":
        state["model._layers.1.block3.conv1.weight"] = torch.zeros(1)
    elif damage == "shape":
        state["model._layers.2.block1.conv1.weight"] = torch.zeros(3, 3, 3, 3, 3)
    elif damage == "gap":
        state = {name: value for name, value in state.items() if "_layers.1." not in name}
    else:
        state["model.output_layer.bias"][1] = torch.nan
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    with pytest.raises(ModelRefused) as caught:
        read(tmp_path / "last.ckpt", ImportRequest())
    assert caught.value.reason is Reason.MODEL_INVALID


def test_weights_alone_of_another_network_are_refused_because_they_do_not_say_which(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "model.pth")
    assert recognises(tmp_path / "model.pth")
    with pytest.raises(ModelRefused, match="do not say which network"):
        read(tmp_path / "model.pth", ImportRequest())
