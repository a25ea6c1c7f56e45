import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

from appliance.errors import ModelRefused, Reason  # noqa: E402
from appliance.importing.completing import merged, name_from, rois_of  # noqa: E402
from appliance.importing.converted import Converted, ImportRequest, Member  # noqa: E402
from appliance.importing.packaging import Origin, write_package  # noqa: E402
from appliance.segmentation.model_package import load_package  # noqa: E402
from appliance.segmentation.opening import open_ensemble  # noqa: E402
from models.registry import build  # noqa: E402
from tests.support.foreign_models import CLASSES, REQUEST, TILE, small_network  # noqa: E402

ORIGIN = Origin("a format", "model.bin", {"model.bin": "0" * 64}, {"torch": "2"}, ("confined",))
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")


def script(network: Any = None) -> Any:
    """As TorchScript, which is exported in a hundredth of the time."""
    return torch.jit.trace(network or small_network(), torch.zeros(1, 1, *TILE)).eval()


def written(folder: Path, converted: Converted, **request: Any) -> Any:
    folder.mkdir()
    values = {"name": REQUEST.name, "licence": REQUEST.licence, "manifest": REQUEST.manifest, **request}
    return write_package(converted, ImportRequest(**values), ORIGIN, folder, lambda _: None)


def test_a_package_opens_and_answers_as_the_original(tmp_path: Path) -> None:
    report = written(tmp_path / "package", Converted({}, (Member(script(), "model.bin"),), ("A note.",)))
    package = load_package(tmp_path / "package")
    ensemble = open_ensemble(package, threads=1)
    assert ensemble.package is package
    (member,) = report.members
    assert (member.original, member.tiles, member.changed_labels) == ("torch", 2, 0.0)
    assert member.largest_logit_difference < 1e-4
    kept = json.loads((tmp_path / "package" / "import_report.json").read_text())
    assert kept["notes"][0] == "A note."
    assert kept["source_sha256"] == {"model.bin": "0" * 64}


def test_the_card_says_that_it_was_imported_and_not_validated(tmp_path: Path) -> None:
    written(tmp_path / "package", Converted({}, (Member(script(), "model.bin"),)))
    card = (tmp_path / "package" / "CARD.md").read_text()
    assert "not validated at this site" in card
    assert "CC-BY-4.0" in card


def test_weights_of_a_known_network_fit_a_fresh_one_and_no_other() -> None:
    from appliance.importing.packaging import _tensors
    from appliance.segmentation.manifest import NetworkDefinition

    arguments = {"channels": 1, "classes": 3, "features": [4, 6]}
    network = build("unet3d_fast", arguments)
    kept = safetensors.load(_tensors(network, NetworkDefinition(name="unet3d_fast", arguments=arguments), "m"))
    assert all(torch.equal(kept[name], value) for name, value in network.state_dict().items())
    other = NetworkDefinition(name="unet3d_fast", arguments={**arguments, "classes": 4})
    with pytest.raises(ModelRefused, match="does not fit"):
        _tensors(network, other, "m")


@pytest.mark.parametrize("missing", ["classes", "spacing_mm", "channels", "licence"])
def test_what_nobody_says_is_asked_for_and_not_guessed(tmp_path: Path, missing: str) -> None:
    manifest = json.loads(json.dumps(REQUEST.manifest))
    manifest.pop(missing, None)
    manifest["input"].pop(missing, None)
    licence = "" if missing == "licence" else "CC-BY-4.0"
    with pytest.raises(ModelRefused, match=missing):
        written(tmp_path / "p", Converted({}, (Member(script(), "m"),)), manifest=manifest, licence=licence)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"classes": ["background", "Bladder"]}, "answers with"),
        ({"classes": ["Bladder", "Rectum", "x"]}, "background"),
        ({"rois": [{"name": "A", "classes": ["nothing"]}]}, "nothing"),
        ({"unknown": 1}, "unknown"),
        ({"input": {**(REQUEST.manifest or {})["input"], "spacing_mm": [0, 1, 1]}}, "spacing_mm"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any], word: str) -> None:
    manifest = {**(REQUEST.manifest or {}), **change}
    with pytest.raises(ModelRefused, match=word) as caught:
        written(tmp_path / "p", Converted({}, (Member(script(), "m"),)), manifest=manifest)
    assert caught.value.reason is Reason.MODEL_INVALID


class Silent(torch.nn.Module):
    def forward(self, x: Any) -> Any:
        return torch.cat([x, x, x * torch.nan], 1)


def test_a_network_that_answers_otherwise_once_converted_is_refused() -> None:
    from appliance.importing.packaging import _differences, _judge, checked
    from models.onnx_export import to_onnx

    values = {**(REQUEST.manifest or {}), "format": 1, "name": "n", "version": "1.0.0", "title": "", "licence": "x"}
    values |= {"intended_use": "", "training": "", "ensemble": "majority", "rois": rois_of(CLASSES)}
    values["input"] = {**values["input"], "overlap": 0.5, "orientation": "LPS"}
    values |= {"limits": {"slice_spacing_mm": [1, 5], "min_extent_mm": [1, 1, 1]}}
    values["folds"] = [{"file": "fold_0.onnx", "sha256": "0" * 64}]
    model = to_onnx(script(), (1, 1, *TILE))
    other = Member(small_network(seed=2), "other.pt")
    with pytest.raises(ModelRefused, match="otherwise once converted"):
        _judge(other, _differences(other, model, checked(values))[1])
    _judge(other, _differences(Member(small_network(), "same.pt"), model, checked(values))[1])


def test_a_network_that_answers_with_no_numbers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="no numbers"):
        written(tmp_path / "p", Converted({}, (Member(script(Silent()), "m"),)))


def test_what_the_import_is_told_replaces_key_by_key() -> None:
    values = {"input": {"tile": [1], "spacing_mm": [1]}, "classes": ["a", "b"]}
    assert merged(values, {"input": {"tile": [2]}, "classes": ["c"]}) == {
        "input": {"tile": [2], "spacing_mm": [1]},
        "classes": ["c"],
    }


def test_classes_become_rois_whose_names_a_planning_system_can_hold() -> None:
    found = rois_of(["background", "lung (left)", "lung left", "lung_left", "ö"])
    assert [roi["name"] for roi in found] == ["lung_left", "class_2", "class_3", "class_4"]
    assert found[0]["classes"] == ["lung (left)"]
    assert name_from("My Bundle v2.zip") == "my-bundle-v2"


def test_trial_tiles_differ_and_lie_in_the_window(tmp_path: Path) -> None:
    from appliance.importing.packaging import trial_tiles

    written(tmp_path / "package", Converted({}, (Member(script(), "model.bin"),)))
    noise, steps = trial_tiles(load_package(tmp_path / "package").manifest)
    assert noise.shape == steps.shape == (1, 1, *TILE)
    assert min(noise.min(), steps.min()) >= -1.0
    assert max(noise.max(), steps.max()) <= 2.0
    assert np.abs(np.diff(steps, axis=4)).mean() < np.abs(np.diff(noise, axis=4)).mean() / 5
