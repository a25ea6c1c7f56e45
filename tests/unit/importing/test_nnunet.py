import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="importing needs torch")

import torch

from appliance.errors import ModelRefused, Reason
from appliance.importing.converted import ImportRequest
from appliance.importing.nnunet import read, recognises
from models.nnunet import NNUNet
from tests.support.nnunet_folder import NNUNET, Change, change

CHECKPOINT = "checkpoint_final.pth"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(NNUNET / "model", tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres"))


def change_checkpoint(path: Path, made: Change) -> None:
    held = torch.load(path, weights_only=False)
    made(held)
    torch.save(held, path)


def test_a_results_folder_is_recognised_from_two_levels_above(folder: Path) -> None:
    assert recognises(folder)
    assert recognises(folder.parent)
    assert not recognises(NNUNET.parent.parent / "unit")


def test_classes_get_the_names_of_the_clinic_and_the_licence_is_not_guessed(folder: Path) -> None:
    manifest = read(folder, ImportRequest()).manifest
    assert [roi["name"] for roi in manifest["rois"]] == ["body", "hip", "femur", "Bladder", "Sacrum"]
    assert "licence" not in manifest
    assert manifest["ensemble"] == "mean_logits"
    assert manifest["input"]["mirror"] == ["x"]


def test_of_two_configurations_the_full_resolution_is_taken(folder: Path) -> None:
    low = Path(shutil.copytree(folder, folder.with_name("nnUNetTrainer__nnUNetPlans__3d_lowres")))
    change(low / "dataset.json", lambda dataset: dataset.update(labels={"background": 0}))
    assert read(folder.parent, ImportRequest()).members[0].came_from.startswith(folder.name)


def test_plans_from_before_the_architecture_key_give_the_same_network(folder: Path) -> None:
    def old(plans: dict[str, Any]) -> None:
        full = plans["configurations"]["3d_fullres"]
        said = full.pop("architecture")["arch_kwargs"]
        full.update(
            UNet_class_name="PlainConvUNet",
            UNet_base_num_features=6,
            unet_max_num_features=320,
            n_conv_per_stage_encoder=said["n_conv_per_stage"],
            n_conv_per_stage_decoder=said["n_conv_per_stage_decoder"],
            conv_kernel_sizes=said["kernel_sizes"],
            pool_op_kernel_sizes=said["strides"],
        )

    expected = read(folder, ImportRequest()).manifest
    change(folder / "plans.json", old)
    assert read(folder, ImportRequest()).manifest == expected


REFUSED_PLANS: dict[str, tuple[Change, str]] = {
    "unknown network": (lambda c: c["architecture"].update(network_class_name="os.system"), "network os.system"),
    "Primus": (lambda c: c["architecture"].update(network_class_name="x.primus.Primus"), "Primus is not known"),
    "unknown layer": (
        lambda c: c["architecture"]["arch_kwargs"].update(norm_op="os.system"),
        "normalisation os.system",
    ),
    "unknown argument": (lambda c: c["architecture"]["arch_kwargs"].update(trick=1), "trick"),
    "order of layers": (lambda c: c["architecture"]["arch_kwargs"].update(nonlin_first=True), "nonlin_first"),
    "fewer strides": (lambda c: c["architecture"]["arch_kwargs"]["strides"].pop(), "2 values for 3 stages"),
    "other width": (lambda c: c["architecture"]["arch_kwargs"].update(features_per_stage=[6, 12, 30]), "not those"),
    "2-D": (lambda c: c.update(patch_size=[48, 64], spacing=[4, 4]), "single slices"),
    "cascade": (lambda c: c.update(previous_stage="3d_lowres"), "cascade"),
    "MR": (lambda c: c.update(normalization_schemes=["ZScoreNormalization"]), "ZScoreNormalization"),
    "resampling": (lambda c: c.update(resampling_fn_data="resample_torch_fornnunet"), "resample_torch_fornnunet"),
    "own preprocessor": (lambda c: c.update(preprocessor_name="Mine"), "preprocessor Mine"),
}


@pytest.mark.parametrize("name", REFUSED_PLANS)
def test_what_is_not_reproduced_is_refused_with_a_sentence(name: str, folder: Path) -> None:
    made, words = REFUSED_PLANS[name]
    change(folder / "plans.json", lambda plans: made(plans["configurations"]["3d_fullres"]))
    with pytest.raises(ModelRefused, match=words) as refusal:
        read(folder, ImportRequest())
    assert refusal.value.reason is Reason.MODEL_INVALID


REFUSED_DATASETS: dict[str, tuple[Change, str]] = {
    "a label too many": (lambda d: d["labels"].update(liver=6), "6 output channels, but dataset.json has 7 labels"),
    "a label missing": (lambda d: d["labels"].pop("sacrum"), "6 output channels, but dataset.json has 5 labels"),
    "a gap": (lambda d: d["labels"].update(sacrum=9), "are not background = 0"),
    "regions": (lambda d: d["labels"].update(sacrum=[4, 5]), "regions"),
    "two channels": (lambda d: d["channel_names"].update({"1": "PET"}), "2 image channels"),
}


@pytest.mark.parametrize("name", REFUSED_DATASETS)
def test_a_class_map_that_does_not_fit_is_refused(name: str, folder: Path) -> None:
    made, words = REFUSED_DATASETS[name]
    change(folder / "dataset.json", made)
    with pytest.raises(ModelRefused, match=words):
        read(folder, ImportRequest())


def test_a_fold_without_checkpoint_is_named(folder: Path) -> None:
    (folder / "fold_1" / CHECKPOINT).unlink()
    with pytest.raises(ModelRefused, match=r"fold_1 has no checkpoint_final\.pth"):
        read(folder, ImportRequest())


def test_a_fold_that_is_missing_between_others_is_named(folder: Path) -> None:
    shutil.copytree(folder / "fold_1", folder / "fold_3")
    with pytest.raises(ModelRefused, match="fold_2 has no"):
        read(folder, ImportRequest())


def test_weights_that_are_no_numbers_are_refused(folder: Path) -> None:
    def spoil(held: dict[str, Any]) -> None:
        held["network_weights"]["encoder.stages.0.0.convs.0.conv.weight"][0] = float("nan")

    change_checkpoint(folder / "fold_1" / CHECKPOINT, spoil)
    with pytest.raises(ModelRefused, match="NaN"):
        read(folder, ImportRequest())


def test_weights_stored_twice_that_differ_are_refused(folder: Path) -> None:
    def spoil(held: dict[str, Any]) -> None:
        name = "encoder.stages.0.0.convs.0.all_modules.0.weight"
        held["network_weights"][name] = held["network_weights"][name] + 1

    change_checkpoint(folder / "fold_0" / CHECKPOINT, spoil)
    with pytest.raises(ModelRefused, match="two versions of its weights"):
        read(folder, ImportRequest())


def test_a_checkpoint_that_was_cut_off_is_refused(folder: Path) -> None:
    path = folder / "fold_0" / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ModelRefused, match=CHECKPOINT):
        read(folder, ImportRequest())


class Sentinel:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("bare", [True, False], ids=["pickle", "checkpoint"])
def test_code_in_a_checkpoint_is_not_executed(bare: bool, folder: Path, tmp_path: Path) -> None:
    path, sentinel = folder / "fold_0" / CHECKPOINT, tmp_path / "executed"
    if bare:
        path.write_bytes(pickle.dumps(Sentinel(sentinel)))
    else:
        change_checkpoint(path, lambda held: held.update(trainer_name=Sentinel(sentinel)))
    with pytest.raises(ModelRefused) as refusal:
        read(folder, ImportRequest())
    assert refusal.value.reason is Reason.MODEL_UNSAFE
    assert not sentinel.exists()


def test_a_network_with_a_residual_encoder_answers_on_its_own_grid_whatever_the_order_of_axes() -> None:
    sizes = {"features": [4, 8], "kernels": [[1, 3, 3], [3, 3, 3]], "strides": [[1, 1, 1], [1, 2, 2]]}
    made = [
        NNUNet(1, 3, **sizes, depths=[1, 2], decoder_depths=[1], residual=True, axes=axes).eval()
        for axes in ([0, 1, 2], [1, 2, 0])
    ]
    made[1].load_state_dict(made[0].state_dict())
    tile = torch.randn(1, 1, 6, 8, 4)
    with torch.no_grad():
        straight, turned = made[0](tile.permute(0, 1, 3, 4, 2)), made[1](tile)
    assert turned.shape == (1, 3, 6, 8, 4)
    assert torch.equal(turned, straight.permute(0, 1, 4, 2, 3))
