import subprocess
import sys
from pathlib import Path

import pytest

from appliance.segmentation.free_memory import host_free_bytes

GIB = 1 << 30


def machine(root: Path, available_gib: int, files: dict[str, str] | None = None) -> Path:
    for name, content in {
        "proc/meminfo": f"MemTotal: 99 kB\nMemAvailable: {available_gib << 20} kB\n",
        **(files or {}),
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


VERSION_2 = {
    "sys/fs/cgroup/memory.max": f"{4 * GIB}\n",
    "sys/fs/cgroup/memory.current": f"{3 * GIB}\n",
    "sys/fs/cgroup/memory.stat": f"anon 1\ninactive_file {GIB}\n",
}
VERSION_1 = {
    "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{4 * GIB}\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{3 * GIB}\n",
    "sys/fs/cgroup/memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {GIB}\n",
}


@pytest.mark.parametrize(
    ("available_gib", "files", "free_gib"),
    [
        (8, {}, 8),
        (8, VERSION_2, 2),  # cached files count as free
        (8, VERSION_1, 2),
        (1, VERSION_2, 1),
        (8, {**VERSION_2, "sys/fs/cgroup/memory.max": "max\n"}, 8),
        (8, {**VERSION_1, "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 8),
        (8, {**VERSION_2, "sys/fs/cgroup/memory.stat": ""}, 1),
        (8, {**VERSION_2, "sys/fs/cgroup/memory.current": f"{9 * GIB}\n"}, 0),
    ],
)
def test_free_is_what_the_machine_has_or_what_the_container_may_still_take(
    tmp_path: Path, available_gib: int, files: dict[str, str], free_gib: int
) -> None:
    assert host_free_bytes(machine(tmp_path, available_gib, files)) == free_gib * GIB


def test_this_machine_has_some_free_memory() -> None:
    assert 1e6 < host_free_bytes() < 1e15


def test_the_peak_within_a_block_is_measured_though_it_is_given_back_before_the_end() -> None:
    """In a process of its own: of a large one the kernel may take back as much meanwhile as the block takes."""
    script = (
        "import numpy as np\n"
        "from appliance.segmentation.free_memory import peak_measured\n"
        "with peak_measured() as taken: np.ones(40_000_000, np.uint8).sum()\n"
        "with peak_measured() as nothing: pass\n"
        "print(taken.host_bytes, nothing.host_bytes)\n"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    taken, nothing = map(int, answer.stdout.split())
    assert 35e6 < taken < 200e6
    assert nothing < 35e6
