"""How much memory there is for this process, and how much a piece of work took: as the kernel says it."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_CGROUPS = (
    ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current", "sys/fs/cgroup/memory.stat", "inactive_file"),
    (
        "sys/fs/cgroup/memory/memory.limit_in_bytes",
        "sys/fs/cgroup/memory/memory.usage_in_bytes",
        "sys/fs/cgroup/memory/memory.stat",
        "total_inactive_file",
    ),
)
"""Limit, usage, statistics and what of the usage is only cache: version 2, then version 1."""

_UNLIMITED = 1 << 60
"""Version 1 writes a number near 2^63 where there is no limit."""


def host_free_bytes(root: Path = Path("/")) -> int:
    """Memory that this process can take: what the machine has available, or less where a container is limited.

    Args:
        root: where proc/ and sys/ are; tests have their own.
    """
    available = _field(root / "proc/meminfo", "MemAvailable:") * 1024
    left = [free for free in (_left_in_cgroup(root, *names) for names in _CGROUPS) if free is not None]
    return max(0, min([available, *left]))


def _left_in_cgroup(root: Path, limit: str, usage: str, statistics: str, cache: str) -> int | None:
    try:
        most = (root / limit).read_text().strip()
        used = int((root / usage).read_text())
    except OSError:
        return None
    if most == "max" or int(most) >= _UNLIMITED:
        return None
    with suppress(OSError, LookupError):
        used -= _field(root / statistics, cache)  # the kernel takes that back before it refuses anything
    return int(most) - used


def _field(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        words = line.split()
        if words and words[0] == name:
            return int(words[1])
    raise LookupError(f"{path} has no {name}")


@dataclass
class Taken:
    """Memory that a block of code took at its peak, beyond what the process had before."""

    host_bytes: int = 0


@contextmanager
def peak_measured() -> Iterator[Taken]:
    """Measure by how much the process's resident memory grew at its peak within the block."""
    taken, status = Taken(), Path("/proc/self/status")
    before = _field(status, "VmRSS:")
    with suppress(OSError):  # then the peak since the process began serves as an upper limit
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew at what there is now (proc(5))
    try:
        yield taken
    finally:
        taken.host_bytes = max(0, _field(status, "VmHWM:") - before) * 1024
