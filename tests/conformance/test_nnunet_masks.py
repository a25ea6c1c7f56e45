"""What an imported nnU-Net draws is what nnU-Net's own predictor drew, on scans of every kind."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="importing needs torch")

import torch

from appliance.dicom.ct_volume import CtVolume
from appliance.dicom.geometry import SeriesGeometry
from appliance.importing.completing import completed
from appliance.importing.converted import ImportRequest
from appliance.importing.nnunet import TITLE, read
from appliance.phantoms import make_phantom
from appliance.segmentation.arrays import host_arrays
from appliance.segmentation.ensemble import Ensemble
from appliance.segmentation.manifest import Manifest
from appliance.segmentation.model_package import ModelPackage
from tests.support.nnunet_folder import NNUNET, change

FAR_SLICES = slice(4, 16)


class TorchFold:
    """A network as it was read, without the detour over a package."""

    engine = "torch"

    def __init__(self, network: Any, manifest: Manifest) -> None:
        self.network = network
        self.input_shape = (1, len(manifest.input.channels), *manifest.input.tile)
        self.output_shape = (1, len(manifest.classes), *manifest.input.tile)

    def run(self, tiles: Any) -> Any:
        with torch.no_grad():
            return self.network(torch.from_numpy(tiles)).numpy().copy()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(NNUNET / "model", tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres"))


@pytest.fixture(scope="module")
def hu() -> Any:
    return make_phantom(302, spacing_mm=(5.0, 3.0, 3.0), shape=(36, 80, 112)).hu


def labels(folder: Path, hu: Any, spacing_mm: tuple[float, float, float]) -> Any:
    request = ImportRequest(licence="Apache-2.0")
    converted = read(folder, request)
    values, _ = completed(converted, request, folder.name, TITLE)
    folds = [{"file": f"fold_{number}.onnx", "sha256": "0" * 64} for number in range(len(converted.members))]
    manifest = Manifest.model_validate({**values, "folds": folds})
    package = ModelPackage(manifest, "", ())
    networks = [TorchFold(member.network, manifest) for member in converted.members]
    volume = CtVolume(np.ascontiguousarray(hu), SeriesGeometry.axial(hu.shape, spacing_mm))
    return Ensemble(package, networks, host_arrays()).label(volume, lambda *_: None).labels.voxels


def least_dice(found: Any, expected: Any) -> float:
    numbers = np.unique(expected)
    assert len(numbers) >= 3, "nnU-Net itself found next to nothing"
    return min(
        2
        * np.count_nonzero((found == number) & (expected == number))
        / (np.count_nonzero(found == number) + np.count_nonzero(expected == number))
        for number in numbers
    )


@pytest.mark.parametrize(
    ("case", "spacing_mm"), [("plain", (5.0, 3.0, 3.0)), ("apart", (14.0, 4.0, 4.0))], ids=["plain", "far slices"]
)
def test_masks_are_those_of_nnunets_own_predictor(
    case: str, spacing_mm: tuple[float, float, float], folder: Path, hu: Any
) -> None:
    expected = np.load(NNUNET / "labels.npz")[case]
    shown = hu[FAR_SLICES] if case == "apart" else hu
    assert least_dice(labels(folder, shown, spacing_mm), expected) >= 0.999


def test_a_network_that_takes_the_axes_in_another_order_finds_the_same(folder: Path, hu: Any) -> None:
    change(folder / "plans.json", lambda plans: plans.update(transpose_forward=[1, 0, 2], transpose_backward=[1, 0, 2]))
    assert least_dice(labels(folder, hu, (5.0, 3.0, 3.0)), np.load(NNUNET / "labels.npz")["turned"]) >= 0.999


def test_images_that_nnunet_turned_to_ras_are_turned(folder: Path, hu: Any) -> None:
    change(folder / "plans.json", lambda plans: plans.update(image_reader_writer="NibabelIOWithReorient"))
    assert least_dice(labels(folder, hu, (5.0, 3.0, 3.0)), np.load(NNUNET / "labels.npz")["ras"]) >= 0.999
