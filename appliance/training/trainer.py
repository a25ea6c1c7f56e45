"""A whole training run: phantoms, a trunk, the folds, a package. Call it again and it goes on where it stopped."""

from pathlib import Path

import torch

from appliance.training.config import TrainingConfig
from appliance.training.dataset import PhantomStore, training_seeds
from appliance.training.publish import publish
from appliance.training.sampling import TileDataset
from appliance.training.stage import Progress, StageRun, State, run_stage


def train(config: TrainingConfig, out_dir: Path, *, on_progress: Progress) -> Path:
    """Train the ensemble and write its model package; returns the package's folder.

    Everything is kept in `out_dir`: phantoms, a checkpoint per stage, the package. An interrupted run is resumed by the
    same call, with the tiles that it would have seen. In bfloat16 the last bits differ from run to run all the same.

    Raises:
        ExportDiffers: an exported fold does not answer as the trained one does.
    """
    torch.set_num_threads(config.threads)
    make_phantoms(config, out_dir, on_progress)
    folds = [train_fold(config, out_dir, fold, on_progress) for fold in range(config.folds)]
    package = out_dir / "package"
    publish(config, folds, package)
    return package


def make_phantoms(config: TrainingConfig, out_dir: Path, on_progress: Progress) -> None:
    """Fill the run's phantom store."""

    def report(done: int, total: int) -> None:
        on_progress("phantoms", done, total, 0.0)

    _store(out_dir).make_missing(config.phantoms.seeds, report)


def train_trunk(config: TrainingConfig, out_dir: Path, on_progress: Progress) -> State:
    """Train what all folds share, on every training phantom; returns the averaged weights."""
    tiles = _tiles(config, out_dir, fold=None)
    return run_stage(StageRun("trunk", config.trunk, tiles, None, out_dir / "trunk.pt"), config, on_progress)


def train_fold(config: TrainingConfig, out_dir: Path, fold: int, on_progress: Progress) -> State:
    """Branch one fold off the trunk and finish it on its own share of the phantoms."""
    trunk = train_trunk(config, out_dir, on_progress)
    tiles = _tiles(config, out_dir, fold)
    run = StageRun(f"fold_{fold}", config.fold, tiles, trunk, out_dir / f"fold_{fold}.pt")
    return run_stage(run, config, on_progress)


def _store(out_dir: Path) -> PhantomStore:
    return PhantomStore(out_dir / "phantoms")


def _tiles(config: TrainingConfig, out_dir: Path, fold: int | None) -> TileDataset:
    seeds = training_seeds(config.phantoms.seeds, fold, config.folds)
    stream = (config.seed, 0 if fold is None else fold + 1)
    stage = config.trunk if fold is None else config.fold
    return TileDataset(_store(out_dir), seeds, config.network, stage.tile, stream)
