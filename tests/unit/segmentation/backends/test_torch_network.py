from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appliance.errors import ModelRefused, Reason

torch = pytest.importorskip("torch")

import safetensors.torch  # noqa: E402

from appliance.dicom.ct_volume import CtVolume  # noqa: E402
from appliance.dicom.geometry import SeriesGeometry  # noqa: E402
from appliance.segmentation.arrays import host_arrays  # noqa: E402
from appliance.segmentation.backends import torch_network  # noqa: E402
from appliance.segmentation.backends.engine import Engine  # noqa: E402
from appliance.segmentation.backends.torch_network import TorchNetwork, with_folded_norms  # noqa: E402
from appliance.segmentation.ensemble import Ensemble  # noqa: E402
from appliance.segmentation.manifest import Manifest  # noqa: E402
from appliance.segmentation.model_package import load_package  # noqa: E402
from models.registry import build  # noqa: E402
from tests.support.array_libraries import torch_on_cpu  # noqa: E402
from tests.support.unet_packages import SMALL, TILE, make_unet_package, seeded, smooth_tiles  # noqa: E402

ON_CPU = Engine("torch", torch_network.version())


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return load_package(make_unet_package(tmp_path_factory.mktemp("unet"), folds=1)).manifest


def tensors(**changed: Any) -> bytes:
    return safetensors.torch.save(dict(build("unet3d", {**SMALL, **changed}).state_dict()))


def test_batch_normalisation_disappears_into_the_convolutions_without_changing_an_answer() -> None:
    module = seeded("unet3d", SMALL, 3)
    folded = with_folded_norms(module)
    left = [layer for layer in folded.modules() if isinstance(layer, torch.nn.BatchNorm3d)]
    assert len(left) == SMALL["levels"]  # those behind a sum of two convolutions stay
    tiles = torch.from_numpy(smooth_tiles(2, (1, *TILE)))
    with torch.inference_mode():
        assert torch.allclose(folded(tiles), module(tiles), atol=1e-5)


def test_a_network_that_cannot_be_traced_is_taken_as_it_is() -> None:
    class Moody(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x if x.sum() > 0 else -x

    module = Moody()
    assert with_folded_norms(module) is module


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"not tensors", "does not hold the tensors"),
        (tensors(first_features=8), "does not hold the tensors"),
        (tensors(levels=1), "does not hold the tensors"),
    ],
)
def test_tensors_that_do_not_fit_the_network_are_refused(manifest: Manifest, content: bytes, words: str) -> None:
    with pytest.raises(ModelRefused) as caught:
        TorchNetwork(content, "fold_0.safetensors", manifest, ON_CPU)
    assert caught.value.reason is Reason.MODEL_INVALID
    assert words in caught.value.sentence


def test_a_network_of_another_number_of_classes_than_the_manifest_names_is_refused(manifest: Manifest) -> None:
    two = manifest.model_copy(update={"classes": ("background", "organ_1")})
    with pytest.raises(ModelRefused, match=r"answers \(1, 4, 8, 16, 16\)"):
        TorchNetwork(tensors(), "fold_0.safetensors", two, ON_CPU)


def test_counters_that_only_training_reads_may_be_missing(manifest: Manifest) -> None:
    content = {name: value for name, value in build("unet3d", SMALL).state_dict().items() if "num_batches" not in name}
    network = TorchNetwork(safetensors.torch.save(content), "fold_0.safetensors", manifest, ON_CPU)
    assert np.isfinite(network.run(smooth_tiles(1, (1, *TILE)))).all()


def test_what_it_answers_to_its_own_tensors_may_be_written_to(manifest: Manifest) -> None:
    network = TorchNetwork(tensors(), "fold_0.safetensors", manifest, ON_CPU)
    answer = network.run(torch.from_numpy(smooth_tiles(1, (1, *TILE))))
    answer += 1
    assert isinstance(answer, torch.Tensor)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_on_a_gpu_passes_the_gate_on_a_network_with_batch_norm(tmp_path: Path, precision: Any) -> None:
    from appliance.segmentation.backends.here import Wishes, candidates, reference
    from appliance.segmentation.parity import examine

    package = load_package(make_unet_package(tmp_path, folds=1, precisions=[precision]))
    found = candidates(package, Wishes(threads=1, device="cuda", engines=("torch",)))
    (candidate,) = (one for one in found if one.engine.precision == precision)
    outcome = examine(candidate, reference(package, 1), smooth_tiles(2, (1, *TILE)), folds=1)
    assert outcome.least_dice is not None
    assert outcome.least_dice > 0.98  # untrained networks are unsure everywhere, so that rounding shows
    assert outcome.device_bytes


@pytest.mark.gpu
def test_a_tile_that_no_gpu_holds_is_out_of_memory_and_leaves_the_network_usable(manifest: Manifest) -> None:
    from appliance.segmentation.backends.network import OutOfMemory

    (device, *_) = torch_network.gpus()
    network = TorchNetwork(tensors(), "fold_0.safetensors", manifest, Engine("torch", "", device))
    free, _ = torch_network.free_bytes(device)
    too_many = free // (4 * np.prod(TILE) * 4) + 1
    with pytest.raises(OutOfMemory):
        network.run(torch.zeros((1, 1, *TILE), device=device).expand(int(too_many), -1, -1, -1, -1))
    assert np.isfinite(network.run(torch.zeros((1, 1, *TILE), device=device)).cpu().numpy()).all()


def test_a_whole_scan_on_torchs_own_arrays_gets_the_masks_of_numpys(tmp_path: Path) -> None:
    """What a GPU does but for the device: tiles, logits, accumulators and labels are tensors all the way."""
    package = load_package(make_unet_package(tmp_path / "unet", folds=2))
    geometry = SeriesGeometry.axial((30, 40, 44), (4.0, 4.0, 4.0), (0.0, 0.0, 0.0))
    hu = (smooth_tiles(1, (30, 40, 44))[0] * 400).astype(np.int16)
    volume = CtVolume(hu, geometry)
    labels = []
    for arrays in (host_arrays(), torch_on_cpu()):
        networks = [TorchNetwork(package.read_tensors(fold), "fold", package.manifest, ON_CPU) for fold in range(2)]
        labels.append(Ensemble(package, networks, arrays, batch=2).label(volume, lambda *_: None).labels)
    assert len(np.unique(labels[0].voxels)) > 1
    assert np.count_nonzero(labels[0].voxels != labels[1].voxels) < 1e-4 * hu.size
    assert np.abs(labels[0].certainty.astype(int) - labels[1].certainty).max() <= 2
