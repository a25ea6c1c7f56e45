"""nnU-Net itself, as its authors wrote it: trains on drawn phantoms and predicts. Runs where `nnunetv2` is installed.

    PYTHON_OF_THE_PEER nnunet_peer.py train FOLDER      # from FOLDER/drawn/ to FOLDER/results/
    PYTHON_OF_THE_PEER nnunet_peer.py predict MODEL SCAN.npz ANSWER.npz

Scans are `.npz` files with `hu` and `spacing_mm` (z, y, x), and `labels` where they are trained on. What a prediction
cost goes to the standard output as one line of JSON.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

DATASET = "Dataset900_Phantoms"


def main() -> None:
    command, folder, *files = sys.argv[1:]
    os.environ.update(nnUNet_n_proc_DA="1", nnUNet_def_n_proc="1", nnUNet_compile="f", MPLBACKEND="agg")
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = f"{folder}/{name}"
    if command == "train":
        train(Path(folder))
    else:
        predict(Path(folder), Path(files[0]), Path(files[1]))


def train(folder: Path) -> None:
    """Plan as nnU-Net does, but for the network, patch and steps of `recipe.json`, which are smaller; then train."""
    recipe = json.loads((folder / "recipe.json").read_text())
    _write_raw(folder, recipe["classes"])
    plans = _plan(folder, recipe)
    import torch
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    torch.set_num_threads(1)
    os.environ["nnUNet_n_proc_DA"] = "0"  # no processes beside this one; the planner would not take it
    DefaultPreprocessor(verbose=False).run(900, "3d_fullres", "nnUNetPlans", num_processes=1)
    dataset = json.loads((folder / "preprocessed" / DATASET / "dataset.json").read_text())
    for fold in range(recipe["folds"]):
        torch.manual_seed(fold)
        np.random.seed(fold)  # noqa: NPY002  nnU-Net draws from this one
        trainer = _trainer_class(tuple(recipe["mirror"]))(
            {**plans, "continue_training": False}, "3d_fullres", fold, dataset, torch.device("cpu")
        )
        trainer.oversample_foreground_percent, trainer.initial_lr = 0.66, 5e-3
        trainer.num_epochs, trainer.num_iterations_per_epoch = recipe["epochs"], recipe["steps"]
        trainer.num_val_iterations_per_epoch = 4
        trainer.run_training()


def _trainer_class(mirror: tuple[int, ...]) -> type:
    """nnU-Net's trainer for few steps: with Adam, and of its augmentation only mirroring along some axes."""
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
    from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoDA import nnUNetTrainerNoDA
    from nnunetv2.training.nnUNetTrainer.variants.optimizer.nnUNetTrainerAdam import nnUNetTrainerAdam

    def training_transforms(*given: object, **named: object) -> ComposeTransforms:
        others = nnUNetTrainerNoDA.get_training_transforms(*given, **named)
        return ComposeTransforms([MirrorTransform(allowed_axes=mirror), others])

    def configure(self: nnUNetTrainerNoDA) -> tuple:
        rotation, flat, patch, _ = nnUNetTrainerNoDA.configure_rotation_dummyDA_mirroring_and_inital_patch_size(self)
        self.inference_allowed_mirroring_axes = mirror
        return rotation, flat, patch, mirror

    # The checkpoint holds the name of the class, by which nnU-Net finds one again to predict with.
    overridden = {
        "configure_optimizers": nnUNetTrainerAdam.configure_optimizers,
        "get_training_transforms": staticmethod(training_transforms),
        "configure_rotation_dummyDA_mirroring_and_inital_patch_size": configure,
    }
    return type(nnUNetTrainerNoDA.__name__, (nnUNetTrainerNoDA,), overridden)


def predict(model: Path, scan: Path, answer: Path) -> None:
    """One scan, from the array in memory to its labels, with Gaussian weights, steps of half a tile and mirroring."""
    import torch
    from nnunetv2.inference import predict_from_raw_data
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    # The search by name imports every trainer that there is, and with them packages that may not fit this torch.
    predict_from_raw_data.recursive_find_trainer_class_by_name = lambda _: nnUNetTrainer
    torch.set_num_threads(1)
    read = np.load(scan)
    predictor = predict_from_raw_data.nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    folds = tuple(sorted(int(path.name.removeprefix("fold_")) for path in model.glob("fold_[0-9]")))
    predictor.initialize_from_trained_model_folder(str(model), folds)
    image = read["hu"].astype(np.float32)[None]
    properties = {"spacing": [float(value) for value in read["spacing_mm"]]}
    at_start_mb, started, cpu_s = from_here_on_mb(), time.perf_counter(), time.process_time()
    labels = predictor.predict_single_npy_array(image, properties)
    cost = {"wall_s": time.perf_counter() - started, "cpu_s": time.process_time() - cpu_s}
    print(json.dumps({**cost, "above_start_mb": status_mb("VmHWM") - at_start_mb}))
    np.savez_compressed(answer, labels=labels.astype(np.uint8))


def _write_raw(folder: Path, classes: list[str]) -> None:
    import SimpleITK as sitk

    raw = folder / "raw" / DATASET
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True, exist_ok=True)
    cases = sorted((folder / "drawn").glob("*.npz"))
    for path in cases:
        read = np.load(path)
        for array, name in ((read["hu"], f"imagesTr/{path.stem}_0000"), (read["labels"], f"labelsTr/{path.stem}")):
            image = sitk.GetImageFromArray(array)
            image.SetSpacing([float(value) for value in read["spacing_mm"][::-1]])
            sitk.WriteImage(image, str(raw / f"{name}.nii.gz"))
    description = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **{name: number for number, name in enumerate(classes, 1)}},
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "SimpleITKIO",
    }
    (raw / "dataset.json").write_text(json.dumps(description))


def _plan(folder: Path, recipe: dict) -> dict:
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints

    extract_fingerprints([900], num_processes=1, check_dataset_integrity=False, clean=True, verbose=False)
    plans = ExperimentPlanner(900).plan_experiment()
    full = plans["configurations"]["3d_fullres"]
    full.update(patch_size=recipe["patch"], batch_size=2)
    network, stages = full["architecture"]["arch_kwargs"], len(recipe["features"])
    network.update(
        n_stages=stages,
        features_per_stage=recipe["features"],
        kernel_sizes=[[3, 3, 3]] * stages,
        strides=[[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
        n_conv_per_stage=[2] * stages,
        n_conv_per_stage_decoder=[2] * (stages - 1),
    )
    (folder / "preprocessed" / DATASET / "nnUNetPlans.json").write_text(json.dumps(plans, indent=2))
    return plans


def from_here_on_mb() -> float:
    """Forget the peak so far and return what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")
    return status_mb("VmRSS")


def status_mb(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


if __name__ == "__main__":
    main()
