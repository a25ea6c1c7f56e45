import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from appliance.training import stage as stage_module  # noqa: E402
from appliance.training.stage import learning_rate  # noqa: E402
from appliance.training.trainer import train, train_trunk  # noqa: E402


def silent(_stage: str, _done: int, _total: int, _loss: float) -> None:
    pass


class Unplugged(Exception):
    """Somebody pulled the plug."""


@pytest.fixture(scope="module")
def phantom_folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from appliance.training.dataset import PhantomStore

    folder = tmp_path_factory.mktemp("run") / "phantoms"
    PhantomStore(folder).make_missing([1000, 1001], lambda _done, _total: None)
    return folder


@pytest.fixture
def new_run(phantom_folder: Path, tmp_path: Path) -> Any:
    def make(name: str) -> Any:
        (tmp_path / name).mkdir()
        (tmp_path / name / "phantoms").symlink_to(phantom_folder)
        return tmp_path / name

    return make


def test_training_writes_a_package_whose_digests_hold(config: Any, new_run: Any) -> None:
    seen = []
    package = train(config, new_run("a"), on_progress=lambda *event: seen.append(event[:3]))
    manifest = json.loads((package / "manifest.json").read_text())
    assert [fold["file"] for fold in manifest["folds"]] == ["fold_0.onnx", "fold_1.onnx"]
    for fold in manifest["folds"]:
        assert hashlib.sha256((package / fold["file"]).read_bytes()).hexdigest() == fold["sha256"]
    assert {("trunk", 2, 2), ("fold_0", 2, 2), ("fold_1", 2, 2)} <= set(seen)


def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(config: Any, new_run: Any) -> None:
    whole = train_trunk(config, new_run("whole"), silent)

    def unplug(_stage: str, done: int, _total: int, _loss: float) -> None:
        if done == 1:
            raise Unplugged

    broken = new_run("broken")
    with pytest.raises(Unplugged):
        train_trunk(config, broken, unplug)
    resumed = train_trunk(config, broken, silent)
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value)


def test_a_finished_stage_is_not_trained_again(config: Any, new_run: Any) -> None:
    folder = new_run("a")
    train_trunk(config, folder, silent)
    steps = []
    train_trunk(config, folder, lambda *event: steps.append(event))
    assert steps == []


def test_the_learning_rate_warms_up_and_falls_to_its_end(config: Any) -> None:
    plan = config.trunk.model_copy(update={"steps": 1000})
    rates = [learning_rate(plan, step) for step in range(1000)]
    assert rates[0] < 0.05 * plan.peak_rate
    assert max(rates) == pytest.approx(plan.peak_rate, rel=0.02)
    assert rates[-1] == pytest.approx(plan.final_rate * plan.peak_rate, rel=0.02)


def test_checkpoints_are_read_as_weights_only(config: Any, new_run: Any) -> None:
    folder = new_run("a")
    train_trunk(config, folder, silent)
    state = torch.load(folder / "trunk.pt", weights_only=True)
    assert state["done"] == 2
    assert stage_module.build_network(config).state_dict().keys() == state["average"].keys()
