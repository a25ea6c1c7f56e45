"""Twelve ways in which a model asks to be executed: each is refused with a sentence, and nothing is executed.

The conversion runs in this process, without the confinement that it has in service: what is shown is that nothing asks
for the code to run, not that something stops it.
"""

import io
import json
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("monai")
pytest.importorskip("safetensors")

from appliance.errors import ModelRefused, Reason  # noqa: E402
from appliance.importing.conversion import convert  # noqa: E402
from tests.support.foreign_models import make_manifest_folder, make_monai_bundle, make_torchscript  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


class Evil:
    """Touches a file as it is unpickled."""

    def __init__(self, sentinel: Path) -> None:
        self.command = f"touch {sentinel}"

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def refusal(source: Path, work: Path) -> ModelRefused:
    package = work / "package"
    package.mkdir(parents=True)
    request = {"name": "evil", "licence": "none", "manifest": {}}
    task = {"source": str(source), "package": str(package), "work": str(work), "request": request}
    try:
        with pytest.raises(ModelRefused) as caught:
            convert(task, [], lambda _: None)
    finally:
        torch.set_grad_enabled(True)
    assert list(package.iterdir()) == []
    assert caught.value.reason in {Reason.MODEL_UNSAFE, Reason.MODEL_INVALID}
    return caught.value


def plain_pickle(folder: Path, evil: Evil) -> Path:
    (folder / "model.pkl").write_bytes(pickle.dumps(evil))
    return folder / "model.pkl"


def torch_archive(folder: Path, evil: Evil) -> Path:
    torch.save({"state_dict": {"a": torch.zeros(1)}, "b": evil}, folder / "model.pt")
    return folder / "model.pt"


def torch_before_archives(folder: Path, evil: Evil) -> Path:
    torch.save({"b": evil}, folder / "model.pth", _use_new_zipfile_serialization=False)
    return folder / "model.pth"


def torch_tar(folder: Path, evil: Evil) -> Path:
    with tarfile.open(folder / "model.ckpt", "w") as archive:
        for name in ("sys_info", "pickle", "tensors"):
            content = pickle.dumps(evil)
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return folder / "model.ckpt"


def numpy_objects(folder: Path, evil: Evil) -> Path:
    np.save(folder / "model.npy", np.array([evil], dtype=object), allow_pickle=True)
    return folder / "model.npy"


def numpy_archive(folder: Path, evil: Evil) -> Path:
    np.savez(folder / "model.npz", weights=np.array([evil], dtype=object))
    return folder / "model.npz"


def joblib(folder: Path, evil: Evil) -> Path:
    # What joblib.dump writes of plain objects: a pickle of protocol 4 or 5.
    (folder / "model.joblib").write_bytes(pickle.dumps({"model": evil}, protocol=4))
    return folder / "model.joblib"


def torchscript(folder: Path, evil: Evil) -> Path:
    path = make_torchscript(folder / "good.ts", scripted=True)
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(folder / "model.ts", "w") as target:
        for entry in source.infolist():
            is_data = entry.filename.endswith("/data.pkl")
            target.writestr(entry.filename, pickle.dumps(evil, protocol=2) if is_data else source.read(entry))
    return folder / "model.ts"


def monai_weights(folder: Path, evil: Evil) -> Path:
    bundle = make_monai_bundle(folder / "bundle")
    torch.save({"model": evil}, bundle / "models" / "model.pt")
    return bundle


def monai_expression(folder: Path, evil: Evil) -> Path:
    expression = f"$import os; os.system({evil.command!r})"
    return make_monai_bundle(folder / "bundle", network_def={"_target_": "UNet", "spatial_dims": expression})


def yaml_object(folder: Path, evil: Evil) -> Path:
    bundle = make_monai_bundle(folder / "bundle")
    (bundle / "configs" / "inference.json").unlink()
    text = f"network_def: !!python/object/apply:os.system [{json.dumps(evil.command)}]"
    (bundle / "configs" / "inference.yaml").write_text(text)
    return bundle


def mlflow(folder: Path, evil: Evil) -> Path:
    model = folder / "mlflow"
    model.mkdir()
    (model / "MLmodel").write_text("flavors:\n  python_function:\n    loader_module: mlflow.pyfunc.model\n")
    (model / "python_model.pkl").write_bytes(pickle.dumps(evil))
    return model


KINDS: tuple[Callable[[Path, Evil], Path], ...] = (
    plain_pickle,
    torch_archive,
    torch_before_archives,
    torch_tar,
    numpy_objects,
    numpy_archive,
    joblib,
    torchscript,
    monai_weights,
    monai_expression,
    yaml_object,
    mlflow,
)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_that_a_model_brings_is_executed(tmp_path: Path, kind: Callable[[Path, Evil], Path]) -> None:
    sentinel = tmp_path / "executed"
    source = tmp_path / "source"
    source.mkdir()
    refused = refusal(kind(source, Evil(sentinel)), tmp_path / "work")
    assert not sentinel.exists()
    assert len(refused.sentence) > 30


def test_the_sentinel_tells_when_something_is_executed(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Evil(tmp_path / "executed")))  # noqa: S301 - to see the sentinel at work
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".onnx", ".json", ".ts", ".zip"])
@pytest.mark.parametrize("kind", [plain_pickle, torch_archive])
def test_another_name_changes_nothing(tmp_path: Path, kind: Callable[[Path, Evil], Path], suffix: str) -> None:
    sentinel = tmp_path / "executed"
    made = kind(tmp_path, Evil(sentinel))
    refusal(made.rename(tmp_path / f"renamed{suffix}"), tmp_path / "work")
    assert not sentinel.exists()


def test_a_pickle_in_place_of_safetensors_is_refused(tmp_path: Path) -> None:
    sentinel = tmp_path / "executed"
    folder = make_manifest_folder(tmp_path / "model")
    manifest = json.loads((folder / "manifest.json").read_text())
    import hashlib

    content = pickle.dumps(Evil(sentinel))
    (folder / "fold_0.safetensors").write_bytes(content)
    manifest["folds"][0]["tensors_sha256"] = hashlib.sha256(content).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    refusal(folder, tmp_path / "work")
    assert not sentinel.exists()
