"""Which engine a model runs on here: chosen by what the gate found, kept, and said in words."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appliance.errors import ModelRefused, Reason
from appliance.segmentation import opening
from appliance.segmentation.arrays import host_arrays
from appliance.segmentation.backends import here
from appliance.segmentation.backends.engine import Engine
from appliance.segmentation.backends.here import Wishes
from appliance.segmentation.backends.network import OutOfMemory
from appliance.segmentation.engine_record import EngineRecord
from appliance.segmentation.model_package import ModelPackage, load_package
from appliance.segmentation.opening import Examined, Gate, WarmModel, open_model
from appliance.segmentation.parity import Candidate, Outcome
from tests.support.model_packages import make_threshold_package

TILE = (4, 6, 8)
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="no openvino")


@pytest.fixture
def package(tmp_path: Path) -> ModelPackage:
    return load_package(make_threshold_package(tmp_path / "thresholds", tile=TILE))


def tiles_of(package: ModelPackage) -> Any:
    shape = (2, len(package.manifest.input.channels), *package.manifest.input.tile)
    return np.random.default_rng(1).uniform(-1, 1.5, shape).astype(np.float32)


def examined(name: str, seconds: float | None, objection: str | None = None, device: str = "cpu") -> Examined:
    engine = Engine(name, "1", device, "a chip")
    candidate = Candidate(engine, host_arrays(), lambda _fold: pytest.fail("loaded without need"))
    return Examined(candidate, Outcome(objection, 1.0, seconds))


REFERENCE = examined("onnxruntime", 1.0)
FASTER = examined("openvino", 0.4)
SLOWER = examined("torch", 1.3)
ON_GPU = examined("torch", 0.01, device="cuda:0")
WRONG = examined("tensorrt", None, "fold 1: its labels are not the reference's", device="cuda:0")


@pytest.mark.parametrize(
    ("found", "engines", "ladder"),
    [
        ([REFERENCE], (), [REFERENCE]),
        ([FASTER, SLOWER, REFERENCE], (), [FASTER, REFERENCE]),
        ([SLOWER, REFERENCE], (), [REFERENCE]),
        ([examined("torch", 0.99), REFERENCE], (), [REFERENCE]),
        ([WRONG, ON_GPU, FASTER, REFERENCE], (), [ON_GPU, FASTER, REFERENCE]),
        ([WRONG, REFERENCE], ("tensorrt",), [REFERENCE]),
        ([SLOWER, FASTER, REFERENCE], ("torch", "openvino"), [SLOWER, REFERENCE]),
        ([SLOWER, REFERENCE], ("onnxruntime", "torch"), [REFERENCE]),
        ([FASTER, SLOWER, REFERENCE], ("openvino", "torch"), [FASTER, REFERENCE]),
    ],
)
def test_the_best_engine_is_the_one_that_was_asked_for_or_is_fastest_and_passed(
    found: list[Examined], engines: tuple[str, ...], ladder: list[Examined]
) -> None:
    assert opening._ladder(found, Wishes(engines=engines)) == ladder


def test_the_reference_stands_below_every_other_engine() -> None:
    for found in ([FASTER, REFERENCE], [ON_GPU, FASTER, SLOWER, REFERENCE]):
        assert opening._ladder(found, Wishes())[-1] is REFERENCE


def test_an_engine_says_what_it_took_and_what_speaks_against_it() -> None:
    assert FASTER.words == "OpenVINO on the CPU (0.4 s a tile)"
    assert WRONG.words == "TensorRT on the GPU (a chip, cuda:0): fold 1: its labels are not the reference's"


@needs_openvino
def test_engines_are_examined_once_and_remembered_across_restarts(package: ModelPackage, tmp_path: Path) -> None:
    path, steps = tmp_path / "engines" / "examined.json", []
    gate = Gate(tiles_of, EngineRecord(path), lambda *step: steps.append(step))
    first = open_model(package, Wishes(threads=1), gate)
    assert steps[0] == (0, 2)
    assert {done for done, _ in steps} == {0, 1}
    kept = json.loads(path.read_text())["models"][package.digest]
    assert [key.split()[0] for key in kept["engines"]] == ["openvino", "onnxruntime"]
    assert all(outcome["objection"] is None for outcome in kept["engines"].values())

    def not_again(*_: Any) -> Any:
        pytest.fail("examined again")

    again = open_model(package, Wishes(threads=1), Gate(not_again, EngineRecord(path), not_again))
    assert again.words == first.words
    assert EngineRecord(path).runs_on(package.digest) == first.words


@needs_openvino
def test_another_model_or_another_number_of_threads_is_examined_anew(package: ModelPackage, tmp_path: Path) -> None:
    record, steps = EngineRecord(tmp_path / "examined.json"), []
    for threads in (1, 2):
        open_model(package, Wishes(threads=threads), Gate(tiles_of, record, lambda *step: steps.append(step)))
    other = load_package(make_threshold_package(tmp_path / "other", tile=TILE, gain_per_hu=0.03))
    open_model(other, Wishes(threads=1), Gate(tiles_of, record, lambda *step: steps.append(step)))
    assert steps.count((0, 2)) >= 3


def test_where_there_is_nothing_to_compare_no_reference_tiles_are_made(package: ModelPackage) -> None:
    gate = Gate(lambda _: pytest.fail("made without need"), EngineRecord(None))
    model = open_model(package, Wishes(engines=("onnxruntime",)), gate)
    assert model.words.startswith("runs on ONNX Runtime on the CPU (")


def test_a_network_for_another_tile_than_the_manifests_is_refused(tmp_path: Path) -> None:
    folder = make_threshold_package(tmp_path, tile=TILE)
    raw = json.loads((folder / "manifest.json").read_text())
    raw["input"]["tile"] = [4, 6, 9]
    (folder / "manifest.json").write_text(json.dumps(raw))
    with pytest.raises(ModelRefused, match="the manifest's tile"):
        open_model(load_package(folder), Wishes(engines=("onnxruntime",)), Gate(tiles_of, EngineRecord(None)))


def test_a_model_that_no_engine_has_room_for_is_refused(package: ModelPackage) -> None:
    def full(_fold: int) -> Any:
        raise OutOfMemory("full")

    with pytest.raises(ModelRefused) as caught:
        WarmModel(package, [Examined(Candidate(Engine("onnxruntime", "1"), host_arrays(), full), Outcome())])
    assert caught.value.reason is Reason.MEMORY_TOO_SMALL


def test_each_scan_begins_on_the_planned_engine(package: ModelPackage) -> None:
    model = open_model(package, Wishes(engines=("onnxruntime",)), Gate(tiles_of, EngineRecord(None)))
    from appliance.segmentation.memory_plan import Scan

    plan = model.plan(Scan((20, 40, 40), (4.0, 4.0, 4.0)))
    ensemble = model.ensemble(plan)
    assert (ensemble.batch, len(ensemble.networks), model.steps_taken) == (1, 3, [])
    assert plan.words.startswith("ONNX Runtime on the CPU: needs 0.")


def test_engines_come_in_the_order_in_which_they_are_wished_for(package: ModelPackage) -> None:
    for engines in (("openvino", "onnxruntime"), ("onnxruntime",), ("torch",)):
        names = [one.engine.name for one in here.candidates(package, Wishes(device="cpu", engines=engines))]
        assert set(names) <= set(engines) - {"onnxruntime"}


def test_a_box_without_a_gpu_never_imports_torch_to_find_that_out(package: ModelPackage) -> None:
    if any(path.exists() for path in here.NVIDIA_DRIVER):
        pytest.skip("there is a GPU here")
    script = (
        "import sys; from pathlib import Path\n"
        "from appliance.segmentation.backends.here import Wishes, candidates, gpus\n"
        "from appliance.segmentation.model_package import load_package\n"
        "candidates(load_package(Path(sys.argv[1])), Wishes(device='auto')); print(gpus(), 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", script, str(package.fold_paths[0].parent)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "{} False"
