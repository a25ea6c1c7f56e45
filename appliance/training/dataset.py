"""The store of phantom anatomies on disk, made when missing, and their split into folds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from appliance.phantoms.anatomy import build_anatomy


@dataclass(frozen=True, slots=True)
class PhantomStore:
    """Anatomies in a folder, one file per seed, read through memory maps so that all processes share one copy.

    They are kept as they fall, also the few that lost an organ: there are patients without a prostate.
    """

    folder: Path

    def make_missing(self, seeds: Sequence[int], on_progress: Callable[[int, int], None]) -> None:
        """Build every anatomy that is not in the store yet; `on_progress(done, total)` after each."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for done, seed in enumerate(seeds, start=1):
            if not self._path(seed).exists():
                anatomy = build_anatomy(seed)
                part = self._path(seed).with_suffix(".part.npy")
                np.save(part, np.stack([anatomy.tissue, anatomy.structure]))
                part.rename(self._path(seed))
            on_progress(done, len(seeds))

    def read(self, seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Tissue and structure maps (z, y, x) of one seed, memory-mapped."""
        maps = np.load(self._path(seed), mmap_mode="r")
        return maps[0], maps[1]

    def _path(self, seed: int) -> Path:
        return self.folder / f"{seed:06d}.npy"


def training_seeds(seeds: Sequence[int], fold: int | None, folds: int) -> tuple[int, ...]:
    """Seeds that one fold trains on: all but every `folds`-th, starting at `fold`; all of them for the trunk (None)."""
    return tuple(seed for index, seed in enumerate(seeds) if fold is None or index % folds != fold)
