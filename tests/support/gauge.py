"""What the processes of a box take, sampled while it works, and whether that grows."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import psutil

_LASTING_S = 5.0
"""Children that live for one association or one object only are no part of what a role takes."""


@dataclass(frozen=True)
class Sample:
    """What a role took at a moment: seconds since the first sample, bytes, counts."""

    at_s: float
    rss: int
    threads: int
    descriptors: int


@dataclass
class Gauge:
    """Samples of one role: its process, and those of its children that last."""

    process: psutil.Process
    samples: list[Sample] = field(default_factory=list)
    _began_s: float = field(default_factory=time.monotonic)

    def sample(self) -> None:
        """Look once."""
        rss = threads = descriptors = 0
        for process in (self.process, *self.process.children(recursive=True)):
            try:
                if process != self.process and time.time() - process.create_time() < _LASTING_S:
                    continue
                rss += process.memory_info().rss
                threads += process.num_threads()
                descriptors += process.num_fds()
            except psutil.NoSuchProcess:
                continue
        self.samples.append(Sample(time.monotonic() - self._began_s, rss, threads, descriptors))

    def growth_bytes(self) -> float:
        """By how much the memory grew from the first quarter of the samples to the last, by their medians."""
        first, last = self._quarters()
        return statistics.median(one.rss for one in last) - statistics.median(one.rss for one in first)

    def percent_an_hour(self) -> float:
        """The same growth as a rate."""
        first, last = self._quarters()
        hours = (statistics.mean(one.at_s for one in last) - statistics.mean(one.at_s for one in first)) / 3600
        return 100 * self.growth_bytes() / statistics.median(one.rss for one in first) / hours

    def _quarters(self) -> tuple[Sequence[Sample], Sequence[Sample]]:
        quarter = max(len(self.samples) // 4, 1)
        return self.samples[:quarter], self.samples[-quarter:]
