"""MONAI and nnU-Net at the same work; runs in a virtual environment that has them.

Called as `engine_peers.py CASE ARGUMENT…`; prints one line of JSON.
"""

import sys
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
warnings.filterwarnings("ignore")

import engine_cases as cases
import numpy as np
import torch


def network(state: Path | None = None) -> Any:
    """The 5-level U-Net with batch normalisation, 5.65 million parameters, 8 classes."""
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
    from torch import nn

    torch.manual_seed(0)
    made = PlainConvUNet(
        1, 5, list(cases.FEATURES), nn.Conv3d, 3, [1, 2, 2, 2, 2], 2, 8, 2,
        conv_bias=True, norm_op=nn.BatchNorm3d, nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True},
    )  # fmt: skip
    if state is not None:
        made.load_state_dict(torch.load(state, weights_only=True))
    return made.eval()


def export(folder: Path) -> dict[str, Any]:
    """The network as ONNX of one tile, and its weights; statistics of normalisation are those of the scan itself."""
    made = network().train()
    tile = torch.from_numpy(cases.channel(cases.scan_hu())[32:128, 80:176, 80:176].copy())[None, None]
    with torch.no_grad():
        for _ in range(12):
            made(tile)
    made.eval()
    torch.save(made.state_dict(), folder / "network.pt")
    torch.onnx.export(
        made, (tile,), str(folder / "fold_0.onnx"), opset_version=18, input_names=["tile"], output_names=["logits"],
        verbose=False, external_data=False,
    )  # fmt: skip
    return {"parameters": sum(weights.numel() for weights in made.parameters())}


def monai(predictor: Any) -> dict[str, Any]:
    """SlidingWindowInferer with Gaussian weights, over the whole scan."""
    from monai.inferers import SlidingWindowInferer

    inferer = SlidingWindowInferer(cases.TILE, sw_batch_size=1, overlap=cases.OVERLAP, mode="gaussian")
    volume = torch.from_numpy(cases.channel(cases.scan_hu()))[None, None]
    count = 0

    def counted(tile: Any) -> Any:
        nonlocal count
        count += 1
        return predictor(tile)

    def run() -> dict[str, Any]:
        with torch.no_grad():
            labels = inferer(volume, counted)[0].argmax(0)
        return {"labels": int(labels.sum())}

    return cases.measured(run) | {"tiles": count}


def nnunet(predictor: Any, classes: int) -> dict[str, Any]:
    """nnUNetPredictor's sliding window without mirroring, over the whole scan."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    class Counting(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.count = 0

        def forward(self, tile: Any) -> Any:
            self.count += 1
            return predictor(tile)

    class Configuration:
        patch_size = cases.TILE

    class Labels:
        num_segmentation_heads = classes

    made = nnUNetPredictor(
        tile_step_size=1 - cases.OVERLAP, use_gaussian=True, use_mirroring=False, perform_everything_on_device=False,
        device=torch.device("cpu"), verbose=False, allow_tqdm=False,
    )  # fmt: skip
    counting = Counting()
    made.network, made.configuration_manager, made.label_manager = counting, Configuration(), Labels()
    volume = torch.from_numpy(cases.channel(cases.scan_hu()))[None]

    def run() -> dict[str, Any]:
        logits = made.predict_sliding_window_return_logits(volume)
        return {"labels": int(logits.argmax(0).sum())}

    return cases.measured(run) | {"tiles": counting.count}


def back() -> dict[str, Any]:
    """Eight classes of logits from 1.5 mm to 200 x 512 x 512 labels, by torch, whole."""
    logits = torch.from_numpy(np.load(sys.argv[2], mmap_mode="r").copy())

    def run() -> None:
        torch.nn.functional.interpolate(logits[None], (200, 512, 512), mode="trilinear")[0].argmax(0)

    return cases.measured(run)


def main() -> None:
    case = sys.argv[1]
    if case == "export":
        cases.answer(export(Path(sys.argv[2])))
    elif case == "back":
        torch.set_num_threads(1)
        cases.answer(back())
    elif case == "stitch":
        torch.set_num_threads(1)
        who, classes = sys.argv[2], int(sys.argv[3])
        constant = torch.from_numpy(cases.tile_answer(classes))
        cases.answer(monai(lambda _: constant) if who == "monai" else nnunet(lambda _: constant.clone(), classes))
    elif case == "pipeline":
        torch.set_num_threads(2)
        made = network(Path(sys.argv[3]) / "network.pt")
        with torch.no_grad():
            made(torch.zeros(1, 1, *cases.TILE))  # warm, as ours is
        cases.answer(monai(made) if sys.argv[2] == "monai" else nnunet(made, 8))


if __name__ == "__main__":
    main()
