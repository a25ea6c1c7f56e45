import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from appliance.errors import ModelRefused, Reason  # noqa: E402
from appliance.importing.tensors import finite, read_checkpoint, read_safetensors  # noqa: E402


class Evil:
    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.sentinel}",)


def test_weights_and_numpy_numbers_beside_them_are_read(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_final.pth"
    beside = {"mean": np.float64(0.5), "best": np.float32(1), "losses": np.zeros(3), "steps": [np.int64(3)]}
    torch.save({"network_weights": {"a": torch.arange(6.0).reshape(2, 3)}, "logging": beside}, path)
    held = read_checkpoint(path)
    assert torch.equal(held["network_weights"]["a"], torch.arange(6.0).reshape(2, 3))
    assert held["logging"]["mean"] == 0.5


def test_what_a_checkpoint_would_execute_is_named_and_not_executed(tmp_path: Path) -> None:
    path, sentinel = tmp_path / "model.pt", tmp_path / "executed"
    torch.save({"a": torch.zeros(2), "b": Evil(sentinel)}, path)
    with pytest.raises(ModelRefused, match=r"posix\.system") as caught:
        read_checkpoint(path)
    assert caught.value.reason is Reason.MODEL_UNSAFE
    assert not sentinel.exists()


def test_a_bare_pickle_is_refused_unread(tmp_path: Path) -> None:
    path, sentinel = tmp_path / "model.pt", tmp_path / "executed"
    path.write_bytes(pickle.dumps(Evil(sentinel)))
    with pytest.raises(ModelRefused) as caught:
        read_checkpoint(path)
    assert caught.value.reason is Reason.MODEL_UNSAFE
    assert not sentinel.exists()


def test_a_class_that_the_format_is_known_to_name_is_replaced_by_nothing(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {"a": torch.ones(1)}, "callbacks": {pytest.MonkeyPatch: {"best": 1}}}, path)
    with pytest.raises(ModelRefused):
        read_checkpoint(path)
    held = read_checkpoint(path, ignored=["_pytest"])
    assert torch.equal(held["state_dict"]["a"], torch.ones(1))
    assert pytest.MonkeyPatch not in held["callbacks"]


def test_a_flipped_byte_in_the_weights_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"a": torch.arange(4096.0)}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelRefused, match="damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize("kept", [0, 3, 100, 2000])
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "model.pt"
    torch.save({"a": torch.arange(4096.0)}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelRefused):
        read_checkpoint(path)


def test_an_archive_that_is_larger_than_it_looks_is_refused(tmp_path: Path) -> None:
    plain, bomb = tmp_path / "model.pt", tmp_path / "bomb.pt"
    torch.save({"a": torch.zeros(4096)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    with pytest.raises(ModelRefused, match="compressed"):
        read_checkpoint(bomb)


def test_a_tensor_that_claims_more_than_its_storage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"a": torch.zeros(1).expand(2**20, 2**20)}, path)
    with pytest.raises(ModelRefused, match="claims"):
        read_checkpoint(path)


def test_safetensors_are_read_and_damaged_ones_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "fold_0.safetensors"
    save_file({"a": torch.ones(3)}, path)
    assert torch.equal(read_safetensors(path)["a"], torch.ones(3))
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ModelRefused):
        read_safetensors(path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(bad: float) -> None:
    state = {"first.weight": torch.ones(3), "second.weight": torch.tensor([1.0, bad])}
    with pytest.raises(ModelRefused, match=r"second\.weight"):
        finite(state, Path("model.pt"))


def test_whole_numbers_among_the_weights_are_fine() -> None:
    assert finite({"seen": torch.tensor(3)}, Path("model.pt"))["seen"] == 3
