"""Whole imports: a confined process, a package that opens, and nothing left behind where it fails."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("monai")
pytest.importorskip("safetensors")

from appliance.dicom.ct_volume import CtVolume  # noqa: E402
from appliance.dicom.geometry import SeriesGeometry  # noqa: E402
from appliance.errors import ModelRefused, Reason  # noqa: E402
from appliance.importing.confinement import Limits  # noqa: E402
from appliance.importing.converted import ImportRequest  # noqa: E402
from appliance.importing.importing import import_model  # noqa: E402
from appliance.segmentation.model_package import load_package  # noqa: E402
from appliance.segmentation.opening import open_ensemble  # noqa: E402
from tests.support.foreign_models import (  # noqa: E402
    REQUEST,
    TILE,
    make_innereye_checkpoint,
    make_manifest_folder,
    make_monai_bundle,
    make_onnx,
    make_torchscript,
    small_network,
)
from tests.support.model_packages import make_threshold_package  # noqa: E402

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.filterwarnings("ignore")


def onnx_file(folder: Path) -> Path:
    script = torch.jit.trace(small_network(), torch.zeros(1, 1, *TILE))
    return make_onnx(folder / "model.onnx", network=script, dynamic=True)


MODELS: dict[str, tuple[Callable[[Path], Path], ImportRequest]] = {
    "ONNX": (onnx_file, REQUEST),
    "TorchScript": (lambda folder: make_torchscript(folder / "model.ts", scripted=True), REQUEST),
    "safetensors or ONNX with a manifest": (lambda folder: make_manifest_folder(folder / "model"), ImportRequest()),
    "MONAI bundle": (lambda folder: make_monai_bundle(folder / "bundle"), ImportRequest()),
    "InnerEye checkpoint": (lambda folder: make_innereye_checkpoint(folder / "last.ckpt"), REQUEST),
}


@pytest.mark.parametrize("title", MODELS)
def test_a_foreign_model_becomes_a_package_that_contours(tmp_path: Path, title: str) -> None:
    make, request = MODELS[title]
    source, into, steps = make(tmp_path), tmp_path / "packages" / "imported", []
    report = import_model(source, into, request, steps.append)
    assert report.format == title
    assert len(steps) >= 3
    assert all(member.changed_labels <= 1e-4 for member in report.members)
    package = load_package(into)
    assert all((into / name).is_file() for name in ("CARD.md", "import_report.json"))
    assert list(into.parent.iterdir()) == [into]
    has_tensors = all(fold.tensors for fold in package.manifest.folds)
    assert has_tensors == title.startswith(("safetensors", "InnerEye"))
    hu = np.random.default_rng(1).uniform(-900, 900, (20, 40, 44)).astype(np.float32)
    labelled = open_ensemble(package, threads=1).label(
        CtVolume(hu, SeriesGeometry.axial(hu.shape, (4.0, 4.0, 4.0))), lambda *_: None
    )
    assert len(np.unique(labelled.labels.voxels)) > 1


def test_an_archive_is_imported_as_the_folder_in_it(tmp_path: Path) -> None:
    folder = make_threshold_package(tmp_path / "thresholds", tile=TILE)
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, folder.name))
    report = import_model(packed, tmp_path / "imported", ImportRequest(name="from-archive", version="2.0.0"))
    assert (report.package, report.version) == ("from-archive", "2.0.0")
    assert {"packed.zip", "fold_2.onnx", "manifest.json"} <= set(report.source_sha256)
    assert load_package(tmp_path / "imported").manifest.classes == ("background", "body", "bone")


def test_a_refused_model_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no network")
    with pytest.raises(ModelRefused) as caught:
        import_model(path, tmp_path / "packages" / "imported", REQUEST)
    assert caught.value.reason is Reason.MODEL_INVALID
    assert list((tmp_path / "packages").iterdir()) == []


def test_a_folder_that_is_taken_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").write_text("1")
    with pytest.raises(ModelRefused, match="already"):
        import_model(make_torchscript(tmp_path / "model.ts", scripted=True), tmp_path / "taken", REQUEST)
    assert (tmp_path / "taken" / "mine").read_text() == "1"


@pytest.mark.parametrize("limits", [Limits(wall_s=0.5), Limits(cpu_s=1), Limits(memory_bytes=2**28)])
def test_a_conversion_that_needs_too_much_is_ended(tmp_path: Path, limits: Limits) -> None:
    with pytest.raises(ModelRefused, match="the conversion"):
        import_model(make_torchscript(tmp_path / "m.ts", scripted=True), tmp_path / "imported", REQUEST, limits=limits)
    assert not (tmp_path / "imported").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["m.ts"]


CONFINED = """
import json, sys
from appliance.importing.confinement import *
said = confine(Limits())
said.append(forbid_programs_and_network())
print(json.dumps(said), flush=True)
{attempt}
print("went through")
"""


def confined(attempt: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.defpath, "PYTHONPATH": str(ROOT)}
    code = CONFINED.format(attempt=attempt)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize(
    "attempt",
    [
        "import os; os.system('true')",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.fork()",
        "import os; os.execv('/bin/true', ['true'])",
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "import socket; socket.getaddrinfo('example.org', 80)",
    ],
)
def test_a_confined_process_reaches_no_program_and_no_network(attempt: str) -> None:
    done = confined(attempt)
    assert "went through" not in done.stdout
    assert "ForbiddenByConfinement" in done.stderr
    assert "went through" in confined("pass").stdout


def test_native_code_finds_no_network_either_where_the_system_can_take_it_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        # The audit hook hears Python alone; this call goes straight to the C library.
        attempt = f"""
import ctypes, socket, struct
libc = ctypes.CDLL(None)
fd = libc.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
address = struct.pack("<H", socket.AF_INET) + struct.pack(">H", {server.getsockname()[1]}) + bytes([127, 0, 0, 1])
print("connected" if libc.connect(fd, address.ljust(16, bytes(1)), 16) == 0 else "alone")
"""
        done = confined(attempt)
    said: list[Any] = json.loads(done.stdout.splitlines()[0])
    if not any(sentence.startswith("no network") for sentence in said):
        pytest.skip("this system gives no process a network namespace of its own; the report says so")
    assert done.stdout.splitlines()[1] == "alone"
