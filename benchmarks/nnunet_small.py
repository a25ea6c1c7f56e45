"""`make bench-nnunet ARGS="--peers-venv DIR"`: a small nnU-Net, trained by nnunetv2 on phantoms and imported.

Our masks against its own predictor's on one scan, Dice of each class that it finds; time and memory of both, each in a
fresh process on one thread, alternating. The trained model is kept in build/nnunet and used again.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from appliance.importing.converted import ImportRequest
from appliance.importing.importing import import_model
from appliance.phantoms import make_phantom

HERE = Path(__file__).parent
CLASSES = {
    "body": ("External",),
    "hip": ("Bone_Pelvic",),
    "femur": ("Femur_L", "Femur_R"),
    "urinary_bladder": ("Bladder",),
    "sacrum": ("Sacrum",),
}
"""What the model learns, the later ones drawn over the earlier ones."""
RECIPE = {
    "classes": list(CLASSES),
    "folds": 1,
    "epochs": 30,
    "steps": 50,
    "patch": [32, 48, 64],
    "features": [8, 16, 32],
    "mirror": [0, 1, 2],
}
LEAST_DICE, LARGEST_TIME, LARGEST_MEMORY = 0.999, 1 / 2, 1 / 3


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers-venv", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("build/nnunet"))
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    work, python = asked.work.absolute(), asked.peers_venv / "bin" / "python"
    results = next(iter(work.glob("results/*/*/plans.json")), None) or _trained(work, python)
    package, scan = work / "package", work / "scan.npz"
    shutil.rmtree(package, ignore_errors=True)
    import_model(results.parent, package, ImportRequest(licence="none, phantoms only"))
    phantom = make_phantom(301, spacing_mm=(3.0, 1.5, 1.5), shape=(120, 222, 280))
    np.savez(scan, hu=phantom.hu, spacing_mm=phantom.spacing_mm)
    commands = {
        "ours": [sys.executable, "-m", "benchmarks.nnunet_ours", package, scan, work / "ours.npz"],
        "nnU-Net": [python, HERE / "nnunet_peer.py", "predict", results.parent, scan, work / "peer.npz"],
    }
    costs: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for _ in range(asked.rounds):
        for name, command in commands.items():
            costs[name].append(json.loads(_run(command).splitlines()[-1]))
            print(name, costs[name][-1])
    _judge(costs, np.load(work / "ours.npz")["labels"], np.load(work / "peer.npz")["labels"])


def _trained(work: Path, python: Path) -> Path:
    (work / "drawn").mkdir(parents=True, exist_ok=True)
    for number in range(12):
        phantom = make_phantom(100 + number, spacing_mm=(5.0, 4.0, 4.0))
        labels = np.zeros(phantom.hu.shape, np.uint8)
        for value, rois in enumerate(CLASSES.values(), start=1):
            for roi in rois:
                if roi in phantom.truth:
                    labels[phantom.truth[roi]] = value
        path = work / "drawn" / f"case_{number:03d}.npz"
        np.savez_compressed(path, hu=phantom.hu, labels=labels, spacing_mm=phantom.spacing_mm)
    (work / "recipe.json").write_text(json.dumps(RECIPE))
    _run([python, HERE / "nnunet_peer.py", "train", work])
    return next(work.glob("results/*/*/plans.json"))


def _run(command: list[object]) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(list(map(str, command)), env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def _judge(costs: dict[str, list[dict[str, float]]], ours: np.ndarray, theirs: np.ndarray) -> None:
    for number, name in enumerate(CLASSES, start=1):
        sizes = np.count_nonzero(ours == number), np.count_nonzero(theirs == number)
        if sum(sizes):
            dice = 2 * np.count_nonzero((ours == number) & (theirs == number)) / sum(sizes)
            print(f"{name}: {sizes[1]} voxels, Dice {dice:.5f} {'ok' if dice >= LEAST_DICE else 'TOO LOW'}")
        else:
            print(f"{name}: not found by either")
    for key, limit in (("cpu_s", LARGEST_TIME), ("above_start_mb", LARGEST_MEMORY)):
        mine, others = (float(np.median([cost[key] for cost in costs[name]])) for name in costs)
        print(
            f"{key}: {mine:.1f} of {others:.1f}, {mine / others:.2f} {'ok' if mine <= limit * others else 'TOO MUCH'}"
        )


if __name__ == "__main__":
    main()
