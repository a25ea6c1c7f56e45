"""What happens to a fold when memory runs out: with networks that say so, and with memory that really is too small."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appliance.segmentation.arrays import host_arrays
from appliance.segmentation.backends.engine import EngineUnusable
from appliance.segmentation.backends.network import OutOfMemory
from appliance.segmentation.backends.stepping_down import Rung, SteppingDown
from tests.support.array_libraries import ARRAY_LIBRARIES

TILES = np.arange(5, dtype=np.float32).reshape(5, 1, 1, 1, 1) + np.zeros((5, 1, 2, 2, 2), np.float32)


class Small:
    """Doubles its tiles; holds so many at once and no more."""

    input_shape = output_shape = ("batch", 1, 2, 2, 2)

    def __init__(self, holds: int, engine: str = "a small device", fails_with: Exception | None = None) -> None:
        self.engine, self.holds, self.fails_with = engine, holds, fails_with
        self.asked: list[int] = []

    def run(self, tiles: Any) -> Any:
        self.asked.append(len(tiles))
        if self.fails_with is not None:
            raise self.fails_with
        if len(tiles) > self.holds:
            raise OutOfMemory("full")
        return 2 * tiles


def rung(network: Small) -> Rung:
    return Rung(network.engine, host_arrays(), lambda: network)


def test_what_fits_is_asked_once_and_as_a_whole() -> None:
    network = Small(holds=5)
    fold = SteppingDown(1, [rung(network)])
    assert np.array_equal(fold.run(TILES), 2 * TILES)
    assert (network.asked, fold.steps_taken) == ([5], [])


def test_fewer_tiles_at_once_give_the_same_answer_and_stay_for_the_next_tiles() -> None:
    network = Small(holds=1)
    fold = SteppingDown(1, [rung(network)])
    assert np.array_equal(fold.run(TILES), 2 * TILES)
    assert network.asked == [5, 2, 1, 1, 1, 1, 1]
    assert fold.steps_taken == [
        "fold 1 on a small device: 5 tiles at once do not fit, went on with 2",
        "fold 1 on a small device: 2 tiles at once do not fit, went on with 1",
    ]
    fold.run(TILES)
    assert network.asked[7:] == [1] * 5


def test_where_one_tile_does_not_fit_the_next_engine_goes_on_with_the_same_tiles() -> None:
    small, large = Small(holds=0), Small(holds=5, engine="the CPU")
    fold = SteppingDown(3, [rung(small), rung(large)])
    assert np.array_equal(fold.run(TILES), 2 * TILES)
    assert fold.engine == "the CPU"
    assert fold.steps_taken[-1] == "fold 3 on a small device: one tile does not fit, went on with the CPU"
    assert large.asked == [5]


def test_an_engine_that_fails_is_left_for_the_next_one() -> None:
    broken = Small(5, "a GPU", EngineUnusable("the driver is gone"))
    fold = SteppingDown(1, [rung(broken), rung(Small(5, "the CPU"))])
    assert np.array_equal(fold.run(TILES), 2 * TILES)
    assert fold.steps_taken == ["fold 1 on a GPU: the driver is gone, went on with the CPU"]


def test_an_engine_without_room_for_the_network_is_left_before_the_first_tile() -> None:
    def does_not_fit() -> Any:
        raise OutOfMemory("full")

    fold = SteppingDown(1, [Rung("a GPU", host_arrays(), does_not_fit), rung(Small(5, "the CPU"))])
    assert fold.engine == "the CPU"
    assert fold.steps_taken == ["fold 1 on a GPU: it does not fit, went on with the CPU"]


def test_the_next_engine_is_loaded_only_when_it_is_needed() -> None:
    def never() -> Any:
        pytest.fail("loaded without need")

    SteppingDown(1, [rung(Small(5)), Rung("the CPU", host_arrays(), never)]).run(TILES)


def test_where_nothing_is_left_to_give_up_the_fold_says_so() -> None:
    with pytest.raises(OutOfMemory, match="fold 2 on a small device: one tile does not fit"):
        SteppingDown(2, [rung(Small(holds=0))]).run(TILES)
    with pytest.raises(EngineUnusable, match="gone"):
        SteppingDown(2, [rung(Small(5, fails_with=EngineUnusable("gone")))]).run(TILES)


def test_another_scan_begins_with_the_best_engine_again() -> None:
    small = Small(holds=0)
    fold = SteppingDown(1, [rung(small), rung(Small(5, "the CPU"))])
    fold.run(TILES)
    small.holds = 5
    fold.begin(0)
    fold.run(TILES)
    assert (fold.engine, fold.steps_taken) == ("a small device", [])


@pytest.mark.parametrize("library", ARRAY_LIBRARIES)
def test_an_answer_comes_back_to_where_its_tiles_are(library: Callable[[], Any]) -> None:
    arrays = library()
    tiles = arrays.array(TILES)
    answer = SteppingDown(1, [rung(Small(holds=2))]).run(tiles)
    assert type(answer) is type(tiles)
    assert np.array_equal(np.asarray(answer), 2 * TILES)


def test_memory_that_really_runs_out_costs_time_and_changes_no_mask(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from tests.support.unet_packages import make_unet_package

    make_unet_package(tmp_path, folds=1, tile=(48, 48, 48))
    # Large blocks go back to the system at once, so that the limit below is a limit.
    surroundings = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    answer = subprocess.run(
        [sys.executable, "-c", _IN_LITTLE_MEMORY, str(tmp_path)],
        env=surroundings,
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(answer.stdout.splitlines()[-1])
    assert told["differ"] == 0
    assert told["classes"] == 4
    assert told["steps"][0] == "fold 1 on it: 24 tiles at once do not fit, went on with 12"


_IN_LITTLE_MEMORY = """
import json, resource, sys
from pathlib import Path
import numpy as np
from appliance.segmentation.backends.here import reference
from appliance.segmentation.backends.stepping_down import Rung, SteppingDown
from appliance.segmentation.model_package import load_package
from tests.support.unet_packages import smooth_tiles

package = load_package(Path(sys.argv[1]))
engine = reference(package, 1)
tiles = smooth_tiles(24, (1, 48, 48, 48))
network = engine.open(0)
expected = np.concatenate([network.run(tiles[k : k + 1]) for k in range(24)]).argmax(1)
fold = SteppingDown(1, [Rung("it", engine.arrays, lambda: network)])
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 120_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
labels = fold.run(tiles)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
labels = labels.argmax(1)
differ, classes = int((labels != expected).sum()), len(np.unique(labels))
print(json.dumps({"differ": differ, "classes": classes, "steps": fold.steps_taken}))
"""
