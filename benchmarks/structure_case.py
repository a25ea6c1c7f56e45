"""What `make bench-structures` draws: a CT series on disk and its regions, as every writer and reader gets them.

Needs numpy alone, so that peers can load it in their own virtual environment. One file a region keeps the part of the
grid that holds it; loading spreads it over the whole grid and is never counted.
"""

import gc
import json
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MB = 1e6


@dataclass(frozen=True)
class Case:
    """A folder with `ct/`, `regions/`, and a folder for each writer."""

    folder: Path

    @property
    def ct(self) -> Path:
        return self.folder / "ct"

    def written(self, writer: str) -> Path:
        return self.folder / "written" / writer / "set.dcm"

    @property
    def names(self) -> list[str]:
        return [path.stem.split("-", 1)[1] for path in self._paths()]

    def add(self, name: str, shape: tuple[int, int, int], box: tuple[slice, slice, slice], p: NDArray) -> None:
        (self.folder / "regions").mkdir(exist_ok=True)
        corners = [[side.start, side.stop] for side in box]
        number = len(self._paths()) + 1
        np.savez(self.folder / "regions" / f"{number:02d}-{name}.npz", shape=shape, box=corners, probability=p)

    def masks(self) -> dict[str, NDArray[np.bool_]]:
        return {name: self.mask(name) for name in self.names}

    def mask(self, name: str) -> NDArray[np.bool_]:
        shape, box, probability = self._read(name)
        return _spread(shape, box, probability > 0.5)

    def probability(self, name: str) -> NDArray[np.float32]:
        return _spread(*self._read(name))

    def _read(self, name: str) -> tuple[tuple[int, ...], tuple[slice, ...], NDArray[np.float32]]:
        (path,) = (self.folder / "regions").glob(f"??-{name}.npz")
        with np.load(path) as stored:
            box = tuple(slice(*side) for side in stored["box"].tolist())
            return tuple(stored["shape"].tolist()), box, stored["probability"]

    def _paths(self) -> list[Path]:
        return sorted((self.folder / "regions").glob("*.npz"))


def _spread(shape: tuple[int, ...], box: tuple[slice, ...], values: NDArray) -> NDArray:
    grid = np.empty(shape, dtype=values.dtype)
    grid[:] = 0  # pages that were never written would not count as memory of the input
    grid[box] = values
    return grid


class Meter:
    """CPU-seconds by stage and the peak of memory above what was there, of this process and those that it starts."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}
        self.peaks_mb: dict[str, float] = {}
        self._before_mb = 0.0

    def begin(self) -> None:
        """Take the memory of now as that of the inputs."""
        gc.collect()
        self._before_mb = _status_mb("VmRSS")

    @contextmanager
    def stage(self, name: str, inputs_mb: float = 0.0) -> Iterator[None]:
        """Count what is done within; `inputs_mb` is what was loaded since `begin` and is no working memory."""
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts from what is there now
        began_s = _cpu_s()
        yield
        self.stages[name] = self.stages.get(name, 0.0) + _cpu_s() - began_s
        own_mb = _status_mb("VmHWM") - self._before_mb - inputs_mb
        others_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / MB
        self.peaks_mb[name] = max(self.peaks_mb.get(name, 0.0), own_mb, others_mb)

    def report(self, **more: object) -> None:
        """Say what was measured on the last line of standard output."""
        figures = {"cpu_s": sum(self.stages.values()), "peak_mb": max(self.peaks_mb.values())}
        print("\n" + json.dumps({**figures, "stages": self.stages, "peaks_mb": self.peaks_mb, **more}))


def _cpu_s() -> float:
    others = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + others.ru_utime + others.ru_stime


def _status_mb(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024 / MB
