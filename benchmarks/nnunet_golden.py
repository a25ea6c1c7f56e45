"""Makes `tests/data/nnunet` from what `nnunet_peer.py train` trained, with the peer's Python: a small results folder,
and what nnU-Net's own predictor finds in a phantom, by which the tests know what is right.

    PYTHON_OF_THE_PEER -m benchmarks.nnunet_golden RESULTS_FOLDER PHANTOM.npz tests/data/nnunet
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from nnunet_peer import predict

CASES = {
    "plain": ((5.0, 3.0, 3.0), [0, 1, 2]),
    "apart": ((14.0, 4.0, 4.0), [0, 1, 2]),
    "turned": ((5.0, 3.0, 3.0), [1, 0, 2]),
}
"""Name -> spacing (z, y, x) that the phantom is said to have, and the order in which the network takes the axes."""

FAR_SLICES = slice(4, 16)
"""Of the phantom, where its slices are said to lie far apart: enough to tell, in a tenth of the network runs."""


def main() -> None:
    results, phantom, out = map(Path, sys.argv[1:4])
    model = out / "model"
    _write_small(results, model)
    hu = np.load(phantom)["hu"]
    answers = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (spacing_mm, order) in CASES.items():
            shown = hu[FAR_SLICES] if name == "apart" else hu
            answers[name] = _predicted(Path(folder) / name, model, (shown, spacing_mm), order)
        back = _predicted(Path(folder) / "ras", model, (hu[:, ::-1, ::-1], CASES["plain"][0]), [0, 1, 2])
        answers["ras"] = back[:, ::-1, ::-1]
    np.savez_compressed(out / "labels.npz", **answers)


def _write_small(results: Path, model: Path) -> None:
    """The folder without the state of the optimiser and all that is not read."""
    import torch

    shutil.rmtree(model, ignore_errors=True)
    plans = json.loads((results / "plans.json").read_text())
    plans["configurations"] = {"3d_fullres": plans["configurations"]["3d_fullres"]}
    for path in sorted(results.glob("fold_[0-9]")):
        held = torch.load(path / "checkpoint_final.pth", weights_only=False, map_location="cpu")
        init = held["init_args"]
        held["init_args"] = {"configuration": init["configuration"], "dataset_name": init["plans"]["dataset_name"]}
        held.update(optimizer_state={}, logging=None, grad_scaler_state=None)
        (model / path.name).mkdir(parents=True)
        torch.save(held, model / path.name / "checkpoint_final.pth")
    (model / "plans.json").write_text(json.dumps(plans, indent=1) + "\n")
    shutil.copy(results / "dataset.json", model / "dataset.json")


def _predicted(folder: Path, model: Path, scan: tuple, order: list[int]) -> np.ndarray:
    shutil.copytree(model, folder)
    plans = json.loads((folder / "plans.json").read_text())
    plans.update(transpose_forward=order, transpose_backward=[order.index(axis) for axis in range(3)])
    (folder / "plans.json").write_text(json.dumps(plans))
    np.savez(folder / "scan.npz", hu=scan[0], spacing_mm=scan[1])
    predict(folder, folder / "scan.npz", folder / "answer.npz")
    return np.load(folder / "answer.npz")["labels"]


if __name__ == "__main__":
    main()
