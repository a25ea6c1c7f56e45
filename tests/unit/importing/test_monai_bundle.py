import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("monai")

from appliance.dicom.ct_volume import CtVolume  # noqa: E402
from appliance.dicom.geometry import SeriesGeometry  # noqa: E402
from appliance.errors import ModelRefused, Reason  # noqa: E402
from appliance.importing.converted import Converted, ImportRequest, Member  # noqa: E402
from appliance.importing.monai_bundle import read, recognises  # noqa: E402
from appliance.importing.packaging import Origin, write_package  # noqa: E402
from appliance.segmentation.model_package import load_package  # noqa: E402
from appliance.segmentation.opening import open_ensemble  # noqa: E402
from tests.support.foreign_models import CLASSES, make_monai_bundle, monai_config  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


def with_step(number: int, **values: Any) -> dict[str, Any]:
    """The preprocessing with one of its steps changed."""
    preprocessing = copy.deepcopy(monai_config()["preprocessing"])
    preprocessing["transforms"][number] |= values
    return {"preprocessing": preprocessing}


def test_a_bundle_says_its_grid_window_tile_and_classes(tmp_path: Path) -> None:
    bundle = make_monai_bundle(tmp_path / "bundle")
    assert recognises(bundle)
    manifest = read(bundle, ImportRequest()).manifest
    found = manifest["input"]
    assert found["spacing_mm"] == [4.0, 2.5, 1.5]
    assert found["tile"] == [16, 24, 32]
    assert (found["orientation"], found["overlap"]) == ("RAS", 0.5)
    (window,) = found["channels"]
    assert [(hu - window["offset_hu"]) / window["scale_hu"] for hu in (-57, 164)] == pytest.approx([0, 1])
    assert window["clip"] == [0.0, 1.0]
    assert manifest["classes"] == CLASSES
    assert manifest["licence"] == "Apache-2.0"


def test_the_axes_are_turned_to_monais_and_back(tmp_path: Path) -> None:
    from monai.networks.nets import UNet

    bundle = make_monai_bundle(tmp_path / "bundle")
    theirs = UNet(3, 1, len(CLASSES), (4, 8, 16), (2, 2), num_res_units=2, norm="batch").eval()
    theirs.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    ours = read(bundle, ImportRequest()).members[0].network
    assert ours is not None
    tile = torch.randn(1, 1, 16, 24, 32)  # (z, y, x)
    with torch.no_grad():
        expected = theirs(tile.permute(0, 1, 4, 3, 2)).permute(0, 1, 4, 3, 2)
        torch.testing.assert_close(ours(tile), expected)


def test_a_scan_of_one_tile_gets_the_labels_that_the_network_gives_it_in_monais_orientation(tmp_path: Path) -> None:
    bundle = make_monai_bundle(tmp_path / "bundle")
    converted = read(bundle, ImportRequest())
    network = converted.members[0].network
    assert network is not None
    # Traced, it is exported in a hundredth of the time.
    traced = torch.jit.trace(network, torch.zeros(1, 1, 16, 24, 32)).eval()
    (tmp_path / "package").mkdir()
    origin = Origin("MONAI bundle", "bundle", {}, {}, ())
    as_traced = Converted(converted.manifest, (Member(traced, "model.pt"),))
    write_package(as_traced, ImportRequest(), origin, tmp_path / "package", lambda _: None)
    hu = np.random.default_rng(2).uniform(-100, 200, (16, 24, 32)).astype(np.float32)
    ensemble = open_ensemble(load_package(tmp_path / "package"), threads=1)
    found = ensemble.label(CtVolume(hu, SeriesGeometry.axial(hu.shape, (4.0, 2.5, 1.5))), lambda *_: None).labels.voxels

    to_the_right_and_front = torch.from_numpy(hu[:, ::-1, ::-1].copy())  # from LPS to RAS
    theirs = (to_the_right_and_front.permute(2, 1, 0)[None, None] + 57) / 221  # (x, y, z)
    with torch.no_grad():
        inner = network.get_submodule("network")
        labels = inner(theirs.clamp(0, 1)).argmax(1)[0].permute(2, 1, 0).numpy()[:, ::-1, ::-1]
    assert (labels == labels[:, ::-1, ::-1]).mean() < 0.99
    assert (found == labels).mean() > 0.9999


def test_expressions_beside_what_is_needed_are_left_alone_and_named(tmp_path: Path) -> None:
    notes = " ".join(read(make_monai_bundle(tmp_path / "bundle"), ImportRequest()).notes)
    assert "not evaluated: device, imports" in notes


@pytest.mark.parametrize(
    ("changes", "reason", "word"),
    [
        ({"network_def": {"_target_": "os.system", "command": "true"}}, Reason.MODEL_UNSAFE, "os.system"),
        ({"network_def": {"_target_": "evil.UNet"}}, Reason.MODEL_UNSAFE, "evil.UNet"),
        ({"network_def": {"_target_": "UNet", "channels": "$list(range(9))"}}, Reason.MODEL_UNSAFE, "range"),
        ({"network_def": {"_target_": "UNet", "spatial_dims": "@nowhere"}}, Reason.MODEL_INVALID, "nowhere"),
        ({"network_def": {"_target_": "UNet", "a": "@network_def"}}, Reason.MODEL_INVALID, "itself"),
        ({"network_def": {"_target_": "UNet", "spatial_dims": 3}}, Reason.MODEL_INVALID, "arguments"),
        ({"imports": ["$__import__('os').system('true')"]}, Reason.MODEL_UNSAFE, "executed"),
        (with_step(0, _target_="mine.Loader"), Reason.MODEL_UNSAFE, "mine.Loader"),
        (with_step(2, axcodes="SAR"), Reason.MODEL_INVALID, "another order"),
        (with_step(3, pixdim="$[1.5] * 3"), Reason.MODEL_UNSAFE, "executed"),
        (with_step(4, _target_="NormalizeIntensityd", nonzero=True), Reason.MODEL_INVALID, "own mean"),
        (with_step(4, _target_="ScaleIntensityd"), Reason.MODEL_INVALID, "own intensities"),
        (
            {"postprocessing": {"transforms": [{"_target_": "Activationsd", "sigmoid": True}]}},
            Reason.MODEL_INVALID,
            "sigmoid",
        ),
    ],
)
def test_what_has_no_known_meaning_is_refused(
    tmp_path: Path, changes: dict[str, Any], reason: Reason, word: str
) -> None:
    with pytest.raises(ModelRefused, match=word) as caught:
        read(make_monai_bundle(tmp_path / "bundle", **changes), ImportRequest())
    assert caught.value.reason is reason


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    bundle = make_monai_bundle(tmp_path / "bundle")
    torch.save({"a": torch.zeros(1)}, bundle / "models" / "model.pt")
    with pytest.raises(ModelRefused, match="does not fit"):
        read(bundle, ImportRequest())


def test_yaml_is_read_as_plain_values(tmp_path: Path) -> None:
    import yaml

    bundle = make_monai_bundle(tmp_path / "bundle")
    (bundle / "configs" / "inference.json").unlink()
    (bundle / "configs" / "inference.yaml").write_text(yaml.safe_dump(monai_config()))
    assert read(bundle, ImportRequest()).manifest["input"]["tile"] == [16, 24, 32]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: !!python/object/apply:os.system ['true']", Reason.MODEL_UNSAFE),
        ("a: &a [x, x]\nb: [*a, *a]", Reason.MODEL_INVALID),
        ("- a list", Reason.MODEL_INVALID),
        ("a: [", Reason.MODEL_INVALID),
    ],
)
def test_yaml_that_is_more_or_less_than_that_is_refused(tmp_path: Path, text: str, reason: Reason) -> None:
    bundle = make_monai_bundle(tmp_path / "bundle")
    (bundle / "configs" / "inference.json").unlink()
    (bundle / "configs" / "inference.yaml").write_text(text)
    with pytest.raises(ModelRefused) as caught:
        read(bundle, ImportRequest())
    assert caught.value.reason is reason
