"""`make bench-engine`: our engine beside MONAI's and nnU-Net's, alternating in fresh processes, CPU-seconds and memory.

The peers need a virtual environment with monai and nnunetv2 (`--peers-venv DIR`); without one it is made in
build/peers/engine. A page is written where the first argument names one.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from appliance import __version__
from appliance.clock import now_utc
from appliance.segmentation.backends.here import gpus

HERE = Path(__file__).parent
REQUIREMENTS = ("torch==2.13.0", "monai==1.6.1", "nnunetv2==2.8.1", "onnx", "onnxscript")


@dataclass(frozen=True)
class Case:
    """One thing to do, and who does it how: the arguments of engine_ours.py and of engine_peers.py.

    Attributes:
        limits: for our first way, by figure.
    """

    title: str
    ours: dict[str, tuple[str, ...]]
    peers: dict[str, tuple[str, ...]]
    threads: int
    limits: dict[str, float]


def cases(work: Path) -> list[Case]:
    peers = ("monai", "nnunet")
    stitched = [
        Case(
            f"Stitching alone, {classes} classes, 160 x 256 x 256, tiles of 96³, one thread",
            {
                "ours": ("stitch", str(classes), "mean_logits", "body"),
                "ours, softmax": ("stitch", str(classes), "mean_softmax", "body"),
                "ours, whole scan": ("stitch", str(classes), "mean_logits", "whole"),
            },
            {peer: ("stitch", peer, str(classes)) for peer in peers},
            1,
            {"cpu_s_a_tile": per_tile, "gb": gb},
        )
        for classes, per_tile, gb in ((8, 0.09, 0.12), (30, 0.15, 0.45))
    ]
    return [
        *stitched,
        Case(
            "Whole pipeline, 160 x 256 x 256, 8 classes, a U-Net of 5.65 million parameters, two threads",
            {"ours": ("pipeline", str(work))},
            {peer: ("pipeline", peer, str(work)) for peer in peers},
            2,
            {},
        ),
        Case(
            "Logits of 8 classes at 1.5 mm (334³) to labels of 200 x 512 x 512, one thread",
            {
                "ours": ("back", str(work / "logits.npy"), "mean_logits"),
                "ours, probabilities": ("back", str(work / "votes.npy"), "mean_softmax"),
            },
            {"torch, whole": ("back", str(work / "logits.npy"))},
            1,
            {"cpu_s": 5.0, "gb": 0.2},
        ),
        *(
            Case(
                f"Five folds, 200 x 512 x 512, 1.5 mm, 8 classes, on {name}",
                {"ours": ("five", str(work), device, "200")},
                {},
                os.cpu_count() or 1,
                {"seconds": 6.0},
            )
            for device, name in gpus().items()
        ),
        Case(
            "117 classes, 512 x 512 x 350, 1.5 mm, accumulators of half precision: peak of the process",
            {"ours": ("classes", "117")},
            {},
            1,
            {"process_gb": 4.0},
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("page", nargs="?", type=Path)
    parser.add_argument("--peers-venv", type=Path, default=Path("build/peers/engine"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    python = _peers(given.peers_venv)
    with tempfile.TemporaryDirectory(prefix="delineate-bench-") as folder:
        work = Path(folder)
        _call([python, HERE / "engine_peers.py", "export", work], 2)
        lines = []
        for case in cases(work):
            if given.only.casefold() in case.title.casefold():
                if case.ours.get("ours", ("",))[0] == "back":
                    _write_logits(work)
                if case.ours["ours"][0] == "pipeline":
                    print(_call([sys.executable, "-m", "benchmarks.engine_ours", "gate", work], 2)["words"], flush=True)
                figures = _measure(case, python, given.rounds if case.peers else 1)
                lines += _table(case, figures)
                print("\n".join(lines[-len(figures) - 6 :]), flush=True)
    if not gpus():
        lines += ["", "No GPU here: five folds on 200 slices were not run."]
    if given.page:
        given.page.write_text("\n".join([*_head(), *lines]) + "\n")


def _measure(case: Case, python: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Everybody once in each round, one after another; the median of each figure."""
    commands = {who: [sys.executable, "-m", "benchmarks.engine_ours", *words] for who, words in case.ours.items()}
    commands |= {who: [python, HERE / "engine_peers.py", *words] for who, words in case.peers.items()}
    seen: dict[str, list[dict[str, Any]]] = {who: [] for who in commands}
    for _ in range(rounds):
        for who, command in commands.items():
            seen[who].append(_call(command, case.threads))
    medians = {}
    for who, runs in seen.items():
        numbers = [name for name, value in runs[0].items() if isinstance(value, int | float)]
        medians[who] = {name: statistics.median(run[name] for run in runs) for name in numbers}
        if medians[who].get("tiles"):
            medians[who]["cpu_s_a_tile"] = medians[who]["cpu_s"] / medians[who]["tiles"]
        medians[who]["engine"] = runs[0].get("engine", "")
    return medians


def _call(command: list[Any], threads: int) -> dict[str, Any]:
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": "."}
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, env=environment, cwd=HERE.parent
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: {done.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def _table(case: Case, figures: dict[str, dict[str, Any]]) -> list[str]:
    ours = figures["ours"]
    lines = [
        "",
        f"## {case.title}",
        "",
        "| who | runs | CPU-s | CPU-s a run | seconds | GB above start | peak of process, GB | CPU against ours |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for who, one in figures.items():
        tiles, each = one.get("tiles"), one.get("cpu_s_a_tile")
        name = f"{who} ({one['engine']})" if one["engine"] else who
        lines.append(
            f"| {name} | {f'{tiles:.0f}' if tiles else ''} | {one['cpu_s']:.2f} | {f'{each:.3f}' if each else ''} "
            f"| {one['seconds']:.2f} | {one['gb']:.2f} | {one['process_gb']:.2f} | {one['cpu_s'] / ours['cpu_s']:.1f} |"
        )
    for name, limit in case.limits.items():
        lines.append(f"\n{name} at most {limit:g}: {ours[name]:.3f}, {'met' if ours[name] <= limit else 'NOT met'}.")
    return lines


def _head() -> list[str]:
    return [
        "# The engine, measured",
        "",
        (
            f"Made by `make bench-engine` on {now_utc():%Y-%m-%d} with Delineate {__version__}, "
            f"{os.cpu_count()} cores. Everybody in a fresh process, alternating; medians. GB above start were added "
            "to the memory of the process once libraries, network and input were there. Do not edit by hand."
        ),
    ]


def _write_logits(work: Path) -> None:
    """Smooth logits, so that all classes win somewhere, everywhere in the scan: the worst case for boxes."""
    from scipy import ndimage  # noqa: PLC0415 - only this case needs it

    coarse = np.random.default_rng(0).standard_normal((8, 28, 28, 28)).astype(np.float32) * 3
    logits = np.stack([ndimage.zoom(one, 334 / 28, order=1) for one in coarse])
    np.save(work / "logits.npy", logits)
    for plane in range(logits.shape[1]):
        odds = np.exp(logits[:, plane] - logits[:, plane].max(axis=0))
        logits[:, plane] = odds / odds.sum(axis=0)
    np.save(work / "votes.npy", logits)


def _peers(venv: Path) -> Path:
    python = venv.absolute() / "bin" / "python"
    if not python.exists():
        print(f"Installing {', '.join(REQUIREMENTS)} into {venv} …")
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
    return python


if __name__ == "__main__":
    main()
