import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import ModelRefused, Reason
from appliance.segmentation.model_package import load_package
from tests.support.model_packages import make_threshold_package


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_threshold_package(tmp_path / "thresholds", tile=(8, 8, 8))


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refusal(folder: Path) -> ModelRefused:
    with pytest.raises(ModelRefused) as caught:
        load_package(folder)
    return caught.value


def test_a_whole_package_names_its_folds_in_order(folder: Path) -> None:
    package = load_package(folder)
    assert [path.name for path in package.fold_paths] == ["fold_0.onnx", "fold_1.onnx", "fold_2.onnx"]
    assert package.manifest.classes == ("background", "body", "bone")


def test_the_digest_is_of_the_content_not_of_the_layout_of_the_manifest(folder: Path) -> None:
    before = load_package(folder).digest
    raw = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(dict(reversed(raw.items()))))
    assert load_package(folder).digest == before
    edit(folder, title="Another title")
    assert load_package(folder).digest != before


def test_other_weights_give_another_digest(folder: Path, tmp_path: Path) -> None:
    other = make_threshold_package(tmp_path / "other", tile=(8, 8, 8), gain_per_hu=0.03)
    assert load_package(other).digest != load_package(folder).digest


def test_an_altered_fold_stops_the_model(folder: Path) -> None:
    fold = folder / "fold_1.onnx"
    fold.write_bytes(fold.read_bytes()[:-1] + b"\x00")
    refused = refusal(folder)
    assert refused.reason is Reason.MODEL_ALTERED
    assert "fold_1.onnx" in refused.sentence


def test_a_missing_fold_stops_the_model(folder: Path) -> None:
    (folder / "fold_2.onnx").unlink()
    refused = refusal(folder)
    assert refused.reason is Reason.MODEL_MISSING
    assert "fold_2.onnx" in refused.sentence


def with_tensors(folder: Path) -> Path:
    """Give the first fold a file of tensors, whose content only a digest knows."""
    path = folder / "fold_0.safetensors"
    path.write_bytes(b"tensors")
    raw = json.loads((folder / "manifest.json").read_text())
    digest = hashlib.sha256(b"tensors").hexdigest()
    folds = [raw["folds"][0] | {"tensors": path.name, "tensors_sha256": digest}, *raw["folds"][1:]]
    edit(folder, folds=folds, network={"name": "unet3d"})
    return path


def test_tensors_are_checked_as_the_networks_are(folder: Path) -> None:
    path = with_tensors(folder)
    package = load_package(folder)
    assert package.read_tensors(0) == b"tensors"
    path.write_bytes(b"Tensors")
    refused = refusal(folder)
    assert (refused.reason, "fold_0.safetensors" in refused.sentence) == (Reason.MODEL_ALTERED, True)
    path.unlink()
    refused = refusal(folder)
    assert (refused.reason, "fold_0.safetensors" in refused.sentence) == (Reason.MODEL_MISSING, True)


def test_a_file_that_changes_after_the_check_is_not_read(folder: Path) -> None:
    path = with_tensors(folder)
    package = load_package(folder)
    (folder / "fold_1.onnx").write_bytes(b"other")
    path.write_bytes(b"other")
    for read in (lambda: package.read_network(1), lambda: package.read_tensors(0)):
        with pytest.raises(ModelRefused) as caught:
            read()
        assert caught.value.reason is Reason.MODEL_ALTERED


def test_tensors_that_the_manifest_does_not_name_are_not_there(folder: Path) -> None:
    with pytest.raises(ModelRefused, match="no tensors for fold 1"):
        load_package(folder).read_tensors(0)


def test_a_missing_package_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere").reason is Reason.MODEL_MISSING


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00", b"[]", b"null"])
def test_a_manifest_that_is_no_json_object_is_refused(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    assert refusal(folder).reason is Reason.MODEL_INVALID


ROI = {"name": "Bladder", "classes": ["body"]}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"speed": "fast"}, "speed"),
        ({"format": 2}, "format"),
        ({"ensemble": "mean_of_guesses"}, "ensemble"),
        ({"classes": ["body", "bone"]}, "background"),
        ({"classes": ["background", "body", "bone", "bone"]}, "class is named twice"),
        ({"folds": []}, "folds"),
        ({"folds": [{"file": "../fold_0.onnx", "sha256": "0" * 64}]}, "file"),
        ({"folds": [{"file": "fold_0.onnx", "sha256": "0" * 64}] * 2}, "fold file is named twice"),
        ({"rois": [ROI, ROI]}, "ROI is named twice"),
        ({"rois": [ROI | {"classes": ["liver"]}]}, "liver"),
        ({"rois": [ROI | {"classes": ["background"]}]}, "background"),
        ({"rois": [ROI | {"name": "A name that is too long"}]}, "name"),
        ({"rois": [ROI | {"side": "left"}]}, "midline_from"),
        ({"rois": [ROI | {"side": "left", "midline_from": ["Sacrum"]}]}, "Sacrum"),
        ({"rois": [ROI | {"keep": "smallest"}]}, "keep"),
        ({"limits": {"slice_spacing_mm": [0.5, 6.0], "min_extent_mm": [0, float("nan"), 0]}}, "limits"),
    ],
)
def test_a_manifest_that_breaks_a_rule_is_refused_with_the_place(
    folder: Path, changes: dict[str, Any], named: str
) -> None:
    edit(folder, **changes)
    refused = refusal(folder)
    assert refused.reason is Reason.MODEL_INVALID
    assert named in refused.sentence


def test_a_clip_that_is_no_range_is_refused(tmp_path: Path) -> None:
    channel = {"offset_hu": 0.0, "scale_hu": 100.0, "clip": [1.0, 1.0]}
    folder = make_threshold_package(tmp_path, tile=(8, 8, 8), channels=[channel])
    assert "clip" in refusal(folder).sentence
