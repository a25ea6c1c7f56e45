"""Our engine at the work of engine_cases.py. Called as `python -m benchmarks.engine_ours CASE ARGUMENT…`."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from appliance.dicom.ct_volume import CtVolume
from appliance.dicom.geometry import SeriesGeometry
from appliance.dicom.scan_description import ScanDescription
from appliance.segmentation.arrays import host_arrays
from appliance.segmentation.backends.here import Wishes
from appliance.segmentation.engine_record import EngineRecord
from appliance.segmentation.ensemble import Ensemble, Run
from appliance.segmentation.labelling import Labelling
from appliance.segmentation.manifest import Manifest
from appliance.segmentation.model_package import ModelPackage, load_package
from appliance.segmentation.opening import Gate, WarmModel, open_model
from appliance.segmentation.preprocess import to_working_grid
from appliance.segmentation.within_memory import segment_within_memory
from appliance.segmentation.working_grid import WorkingGrid
from benchmarks import engine_cases as cases


def manifest(classes: int, **replaced: Any) -> dict[str, Any]:
    names = ["background", *(f"class_{number}" for number in range(1, classes))]
    network_input = {
        "spacing_mm": cases.SPACING_MM,
        "tile": cases.TILE,
        "overlap": cases.OVERLAP,
        "orientation": "LPS",
        "channels": [{"offset_hu": 0, "scale_hu": 1000, "clip": [-1, 2]}],
    }
    return {
        "format": 1,
        "name": "bench",
        "version": "1.0.0",
        "title": "Benchmark",
        "intended_use": "measuring; not for clinical use",
        "training": "none",
        "licence": "none",
        "input": network_input | replaced.pop("input", {}),
        "classes": names,
        "ensemble": "mean_logits",
        "folds": [{"file": "fold_0.onnx", "sha256": "0" * 64}],
        "rois": [{"name": name, "classes": [name]} for name in names[1:]],
        "limits": {"slice_spacing_mm": [0.5, 6.0], "min_extent_mm": [10.0, 10.0, 10.0]},
    } | replaced


class ConstantNetwork:
    """Answers every tile with the same logits."""

    engine = "a constant"

    def __init__(self, logits: Any) -> None:
        self._logits, self._answer, self.count = logits, logits.copy(), 0
        self.input_shape = (1, 1, *logits.shape[2:])
        self.output_shape = logits.shape

    def run(self, _tiles: Any) -> Any:
        self.count += 1
        np.copyto(self._answer, self._logits)  # the engine before us has written over it
        return self._answer


def volume() -> CtVolume:
    return CtVolume(cases.scan_hu(), SeriesGeometry.axial(cases.SHAPE, cases.SPACING_MM, (0.0, 0.0, 0.0)))


def constant_ensemble(classes: int, **replaced: Any) -> tuple[Ensemble, ConstantNetwork]:
    network = ConstantNetwork(cases.tile_answer(classes))
    package = ModelPackage(Manifest.model_validate(manifest(classes, **replaced)), "0" * 64, (Path("fold_0.onnx"),))
    return Ensemble(package, [network], host_arrays()), network


def stitch(classes: int, way: str, crop: str) -> dict[str, Any]:
    """Tiles to the weighted mean of all of them, plane by plane; without what comes before and after."""
    ensemble, network = constant_ensemble(classes, ensemble=way, input={"crop": crop, "skip_air": crop == "body"})
    working = to_working_grid(volume(), ensemble.package.manifest.input)

    def run() -> dict[str, Any]:
        finished = 0
        for _, planes in Run(ensemble, working, lambda *_: None).finished_planes():
            finished += planes.shape[1]
        return {"planes": finished}

    return cases.measured(run) | {"tiles": network.count}


def best_engine(network_folder: Path) -> WarmModel:
    """The real network on the best engine of this machine; the gate is passed once, and what it found kept."""
    digest = hashlib.sha256((network_folder / "fold_0.onnx").read_bytes()).hexdigest()
    described = manifest(8, folds=[{"file": "fold_0.onnx", "sha256": digest}])
    (network_folder / "manifest.json").write_text(json.dumps(described))
    tile = cases.channel(cases.scan_hu())[32:128, 80:176, 80:176].copy()
    gate = Gate(lambda _: tile[np.newaxis, np.newaxis], EngineRecord(network_folder / "examined.json"))
    return open_model(load_package(network_folder), Wishes(threads=2), gate)


def pipeline(network_folder: Path) -> dict[str, Any]:
    """From HU to labels on the CT."""
    ensemble = best_engine(network_folder).ensemble()
    ensemble.networks[0].run(np.zeros((1, 1, *cases.TILE), np.float32))  # warm, as a worker's is
    scan, runs = volume(), 0

    def on_tile(_fold: int, done: int, _total: int) -> None:
        nonlocal runs
        runs = done

    def run() -> dict[str, Any]:
        return {"labels": int(ensemble.label(scan, on_tile).labels.voxels.sum(dtype=np.int64))}

    return cases.measured(run) | {"tiles": runs, "engine": ensemble.networks[0].engine}


def five_folds(network_folder: Path, device: str, slices: int) -> dict[str, Any]:
    """Five folds, 512 x 512 voxels a slice, 1.5 mm: from the volume in memory to masks, planned as a worker does it."""
    folder = network_folder / "five"
    folder.mkdir(exist_ok=True)
    content = (network_folder / "fold_0.onnx").read_bytes()
    folds = []
    for number in range(5):
        (folder / f"fold_{number}.onnx").write_bytes(content)
        folds.append({"file": f"fold_{number}.onnx", "sha256": hashlib.sha256(content).hexdigest()})
    wanted = {"spacing_mm": (1.5, 1.5, 1.5), "overlap": 0.5}
    described = manifest(8, folds=folds, input=wanted, ensemble="mean_softmax", precisions=("float16", "bfloat16"))
    (folder / "manifest.json").write_text(json.dumps(described))
    tile = cases.channel(cases.scan_hu())[32:128, 80:176, 80:176].copy()
    gate = Gate(lambda _: tile[np.newaxis, np.newaxis], EngineRecord(folder / "examined.json"))
    model = open_model(load_package(folder), Wishes(device=device), gate)
    y, x = np.ogrid[:512, :512]
    body = ((y - 256) / 130) ** 2 + ((x - 256) / 200) ** 2 < 1
    hu = np.repeat(np.where(body, 30, -1000).astype(np.int16)[np.newaxis], slices, axis=0)
    scan = CtVolume(hu, SeriesGeometry.axial(hu.shape, (2.5, 0.977, 0.977), (0.0, 0.0, 0.0)))
    model.ensemble().networks[0].run(np.zeros((1, 1, *cases.TILE), np.float32))
    plans: list[str] = []

    def run() -> dict[str, Any]:
        found = segment_within_memory(model, scan, ScanDescription(), on_plan=plans.append)
        return {"labels": len(found.masks)}

    return cases.measured(run) | {"engine": f"{model.words}; {plans[-1]}"}


def back(logits_file: Path, way: str) -> dict[str, Any]:
    """Eight classes from 1.5 mm to 200 x 512 x 512 labels, planes coming in as finished rows of tiles do."""
    geometry = SeriesGeometry.axial((200, 512, 512), (2.5, 0.977, 0.977), (0.0, 0.0, 0.0))
    grid = WorkingGrid.over(geometry, (1.5, 1.5, 1.5))
    votes = np.load(logits_file)
    described = Manifest.model_validate(manifest(8, ensemble=way))

    def run() -> dict[str, Any]:
        labelling = Labelling(grid, described, host_arrays())
        for first in range(0, votes.shape[1], 72):
            labelling.take(first, votes[:, first : first + 72])
        return {"labels": int(labelling.result().voxels.sum(dtype=np.int64))}

    return cases.measured(run)


def many_classes(classes: int) -> dict[str, Any]:
    """117 classes on 512 x 512 x 350 voxels at 1.5 mm, accumulators of half precision: the whole process' peak."""
    described = {
        "ensemble": "mean_softmax",
        "accumulate": "float16",
        "input": {"spacing_mm": (1.5, 1.5, 1.5)},
    }
    ensemble, network = constant_ensemble(classes, **described)
    _, y, x = np.ogrid[:350, :512, :512]
    hu = np.full((350, 512, 512), -1000, np.int16)
    hu[np.broadcast_to(((y - 256) / 130) ** 2 + ((x - 256) / 200) ** 2 < 1, hu.shape)] = 30
    scan = CtVolume(hu, SeriesGeometry.axial(hu.shape, (1.5, 0.977, 0.977), (0.0, 0.0, 0.0)))

    def run() -> dict[str, Any]:
        return {"labels": int(ensemble.label(scan, lambda *_: None).labels.voxels.sum(dtype=np.int64))}

    return cases.measured(run) | {"tiles": network.count}


def main() -> None:
    case, *arguments = sys.argv[1:]
    if case == "stitch":
        cases.answer(stitch(int(arguments[0]), arguments[1], arguments[2]))
    elif case == "pipeline":
        cases.answer(pipeline(Path(arguments[0])))
    elif case == "gate":
        cases.answer({"words": best_engine(Path(arguments[0])).words})
    elif case == "five":
        cases.answer(five_folds(Path(arguments[0]), arguments[1], int(arguments[2])))
    elif case == "back":
        cases.answer(back(Path(arguments[0]), arguments[1]))
    elif case == "classes":
        cases.answer(many_classes(int(arguments[0])))


if __name__ == "__main__":
    main()
