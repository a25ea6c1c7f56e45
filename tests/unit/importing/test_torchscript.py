import pickle
import zipfile
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from appliance.errors import ModelRefused, Reason  # noqa: E402
from appliance.importing.converted import ImportRequest  # noqa: E402
from appliance.importing.torchscript import REACHING_OUT, read, recognises  # noqa: E402
from models.onnx_export import answering, compare, to_onnx  # noqa: E402
from tests.support.foreign_models import TILE, make_torchscript, small_network  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")


@pytest.mark.parametrize("scripted", [True, False])
def test_a_script_answers_as_its_network_did_and_so_does_its_onnx(tmp_path: Path, scripted: bool) -> None:
    path = make_torchscript(tmp_path / "model.ts", scripted=scripted)
    assert recognises(path)
    network = read(path, ImportRequest()).members[0].network
    assert network is not None
    tile = torch.randn(1, 1, *TILE)
    with torch.no_grad():
        torch.testing.assert_close(network(tile), small_network()(tile))
    exported = to_onnx(network, (1, 1, *TILE))
    found = compare(answering(small_network()), exported, [tile.numpy()])
    assert found.largest_logit < 1e-5
    assert str(Path(__file__).parents[3]).encode() not in exported


def test_a_checkpoint_is_not_taken_for_a_script(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "model.pt")
    assert not recognises(tmp_path / "model.pt")


def test_a_pickle_within_a_script_that_names_more_than_tensors_is_refused(tmp_path: Path) -> None:
    path, evil = make_torchscript(tmp_path / "model.ts", scripted=True), tmp_path / "evil.ts"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(evil, "w") as target:
        for entry in source.infolist():
            content = pickle.dumps(print, protocol=2) if entry.filename.endswith("/data.pkl") else source.read(entry)
            target.writestr(entry.filename, content)
    with pytest.raises(ModelRefused, match="print") as caught:
        read(evil, ImportRequest())
    assert caught.value.reason is Reason.MODEL_UNSAFE


class Saves(torch.nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, self.path)
        return x


class Maps(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file("/etc/hostname", False, 4)


def test_a_script_that_reaches_for_files_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    for network in (Saves(str(tmp_path / "written")), Maps()):
        torch.jit.save(torch.jit.script(network), str(tmp_path / "model.ts"))
        with pytest.raises(ModelRefused, match=r"torch\.(save|from_file)") as caught:
            read(tmp_path / "model.ts", ImportRequest())
        assert caught.value.reason is Reason.MODEL_UNSAFE
        assert not (tmp_path / "written").exists()


def test_every_operation_of_this_torch_that_takes_a_file_is_known() -> None:
    taking_files = {
        schema.name.partition("::")[2]
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.partition("::")[0] in ("aten", "prim")
        and any(
            argument.name in ("file", "filename", "path", "uri") and str(argument.type) == "str"
            for argument in schema.arguments
        )
    }
    assert "save" in taking_files
    assert taking_files <= REACHING_OUT


def test_a_script_with_a_flipped_byte_is_refused(tmp_path: Path) -> None:
    path = make_torchscript(tmp_path / "model.ts", scripted=True)
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelRefused):
        read(path, ImportRequest())
