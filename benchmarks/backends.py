"""`make bench-backends`: every engine of this box beside torch's eager network, which is what MONAI and nnU-Net run.

One process, one tile, one engine after the other in each round, so that whatever else the machine does touches all
of them alike; the ratios are the result. The networks are untrained, so their last layer is calibrated until every
class wins somewhere: equal labels of a network that answers one class everywhere would mean nothing.
"""

import argparse
import itertools
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from appliance.clock import Effort, measured
from appliance.segmentation.arrays import to_host
from appliance.segmentation.backends.here import Wishes, candidates, reference
from appliance.segmentation.model_package import load_package
from appliance.segmentation.parity import Comparison
from models.registry import NETWORKS
from tests.support.unet_packages import calibrated, make_unet_package, seeded, smooth_tiles

FEATURES, CLASSES = (16, 32, 64, 128, 256), 8
LEAST_GAIN = 2.2
"""How much faster than torch eager the best engine on the CPU has to be, with batch normalisation."""

TIE = 1e-3
"""Two classes whose logits are this close are equally likely but for 0.1 %; rounding may decide between them. A
trained network has few such voxels, an untrained one has them along the border of every class."""

NETWORKS["bench_unet"] = (__name__, "PlainUNet")


class PlainUNet(nn.Module):
    """nnU-Net's plain U-Net: two convolutions a level, strided down, transposed up, skips concatenated."""

    def __init__(self, channels: int, classes: int, norm: str) -> None:
        super().__init__()
        self._norm = nn.BatchNorm3d if norm == "batch" else nn.InstanceNorm3d
        steps = list(itertools.pairwise(FEATURES))
        self.encoder = nn.ModuleList([self._block(channels, FEATURES[0], 1)])
        self.encoder.extend(self._block(shallow, deep, 2) for shallow, deep in steps)
        self.up = nn.ModuleList(nn.ConvTranspose3d(deep, shallow, 2, stride=2) for shallow, deep in steps)
        self.decoder = nn.ModuleList(self._block(2 * shallow, shallow, 1) for shallow, _ in steps)
        self.head = nn.Conv3d(FEATURES[0], classes, 1)

    def _block(self, channels_in: int, channels: int, stride: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for inputs, step in ((channels_in, stride), (channels, 1)):
            layers += [nn.Conv3d(inputs, channels, 3, stride=step, padding=1)]
            layers += [self._norm(channels, affine=True), nn.LeakyReLU(0.01, inplace=True)]
        return nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, Z, Y, X) to (B, classes, Z, Y, X)."""
        skips = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
        for level in reversed(range(len(self.up))):
            x = self.decoder[level](torch.cat([self.up[level](x), skips[level]], 1))
        return self.head(x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=96, help="of the tile, in voxels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0 takes all cores")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument("--norms", nargs="+", default=["batch", "instance"])
    wanted = parser.parse_args()
    console = Console(width=140)
    gains = {norm: _compare(console, norm, wanted) for norm in wanted.norms}
    gain, changed = gains.get("batch", (LEAST_GAIN, 0))
    words = f"{gain:.2f} times torch eager (limit {LEAST_GAIN}), {changed} labels changed but for ties"
    console.print(f"Best on the CPU, batch norm: {words}; in brackets: labels changed where there was no tie")
    sys.exit(0 if gain >= LEAST_GAIN and not changed else 1)


def _compare(console: Console, norm: str, wanted: argparse.Namespace) -> tuple[float, int]:
    tile, arguments = (wanted.side,) * 3, {"channels": 1, "classes": CLASSES, "norm": norm}
    precisions = ["float16", "bfloat16"] if wanted.device != "cpu" else []
    with tempfile.TemporaryDirectory(prefix="delineate-bench-") as folder:
        made = make_unet_package(
            Path(folder), folds=1, tile=tile, network="bench_unet", arguments=arguments, precisions=precisions
        )
        package = load_package(made)
        wishes = Wishes(wanted.threads, wanted.device)
        ours = {one.engine.words: one for one in [*candidates(package, wishes), reference(package, wanted.threads)]}
        networks = {words: one.open(0) for words, one in ours.items()}
    given = smooth_tiles(1, (1, *tile))
    eager = calibrated(seeded("bench_unet", arguments, 0), (1, 1, *tile))
    runs: dict[str, Callable[[], Any]] = {"torch eager": lambda: _eager(eager, given)}
    for words, one in ours.items():
        runs[words] = lambda words=words, one=one: _ours(one, networks[words], given)
    answers = {words: run() for words, run in runs.items()}  # the first run of each chooses algorithms
    efforts = {words: [Effort() for _ in range(wanted.rounds)] for words in runs}
    for number in range(wanted.rounds):
        for words, run in runs.items():
            with measured(efforts[words][number]):
                run()
    return _report(console, f"{norm} norm", (eager, tile), answers, efforts)


def _eager(module: nn.Module, tiles: Any) -> Any:
    with torch.inference_mode():
        return module(torch.from_numpy(tiles)).numpy()


def _ours(one: Any, network: Any, tiles: Any) -> Any:
    answer = to_host(network.run(one.arrays.array(tiles)))
    one.arrays.wait()
    return answer


def _report(
    console: Console,
    title: str,
    case: tuple[nn.Module, tuple[int, ...]],
    answers: dict[str, Any],
    efforts: dict[str, list[Effort]],
) -> tuple[float, int]:
    module, tile = case
    expected, timed = answers["torch eager"], efforts["torch eager"]
    million = sum(parameter.numel() for parameter in module.parameters()) / 1e6
    share = np.bincount(expected.argmax(1).ravel(), minlength=CLASSES) / expected[:, 0].size
    console.print(
        f"U-Net, {title}, {million:.2f} M parameters, one tile of {tile}, {CLASSES} classes with "
        f"{share.min():.1%} to {share.max():.1%} of the voxels each, {torch.get_num_threads()} threads"
    )
    table = Table(
        "engine", "seconds", "least", "CPU-seconds", "times faster", "by CPU-seconds", "max diff.", "labels (no tie)"
    )
    best = (0.0, 0)
    second, first = np.partition(expected, -2, axis=1)[:, -2:].swapaxes(0, 1)
    lead = first - second
    for words, spent in efforts.items():
        comparison = Comparison(CLASSES)
        comparison.add(expected, answers[words])
        gain, cpu_gain = (
            statistics.median(getattr(a, field) / getattr(b, field) for a, b in zip(timed, spent, strict=True))
            for field in ("seconds", "cpu_seconds")
        )
        differ = answers[words].argmax(1) != expected.argmax(1)
        changed, beyond = int(differ.sum()), int((differ & (lead > TIE)).sum())
        if "CPU" in words and gain > best[0]:
            best = gain, beyond
        table.add_row(
            words,
            f"{statistics.median(one.seconds for one in spent):.2f}",
            f"{min(one.seconds for one in spent):.2f}",
            f"{statistics.median(one.cpu_seconds for one in spent):.2f}",
            f"{gain:.2f}",
            f"{cpu_gain:.2f}",
            f"{np.abs(answers[words] - expected).max():.1e}",
            f"{changed} ({beyond})" + ("" if comparison.objection is None else f" ({comparison.objection})"),
        )
    console.print(table)
    return best


if __name__ == "__main__":
    main()
