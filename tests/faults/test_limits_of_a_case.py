"""F5, F6, F7: memory that runs out, steps that hang, devices that are not there: one case pays, and only so often."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appliance.dicom.ct_volume import CtVolume
from appliance.records import Database
from appliance.records.tables import CaseState
from appliance.segmentation.backends.here import gpus
from appliance.segmentation.model_package import ModelPackage, load_package
from appliance.segmentation.opening import WarmModel
from tests.support.ct_volumes import scan, series_grid
from tests.support.model_packages import make_threshold_package
from tests.support.overseen import Overseen
from tests.support.patients import make_patient
from tests.support.proof import Tally
from tests.support.waiting import wait_until
from tests.unit.segmentation.test_within_memory import masks_and_words, on_device, on_host

GB = 1 << 30
CGROUPS = Path("/sys/fs/cgroup/memory")


@pytest.fixture
def overseen(tmp_path: Path, database: Database) -> Iterator[Overseen]:
    box = Overseen(tmp_path, database, memory_mb=1200, step_limits_s={"segment": 2.0})
    box.receive(make_patient(tmp_path / "poison", "poison", slices=6))
    box.receive(make_patient(tmp_path / "healthy", "healthy", slices=6))
    assert [case.state for case in box.cases()] == [CaseState.QUEUED] * 2
    yield box
    box.overseer.stop()


def _three_times(box: Overseen, trap: str) -> None:
    for _ in range(3):
        box.trap("volume_loaded", trap)
        box.overseer.attend(1)


def _assert_parked_and_the_other_goes_on(box: Overseen, tally: Tally) -> None:
    box.overseer.attend(1)
    box.overseer.attend(2)
    poison, healthy = box.cases()
    tally.count(held=(poison.state, poison.attempts, poison.reason) == (CaseState.FAILED, 3, "worker_lost"))
    tally.count(held=len(box.alarms()) == 1 and "case 1 was parked after 3 attempts" in box.alarms()[0])
    tally.count(held=healthy.state is CaseState.SENDING)


@pytest.mark.fault("F5", "never stuck")
def test_a_case_that_eats_all_memory_is_parked_after_three_attempts_with_an_alarm(
    overseen: Overseen, tally: Tally
) -> None:
    _three_times(overseen, "eat")
    _assert_parked_and_the_other_goes_on(overseen, tally)
    lost = [words for words in overseen.words(1) if "MB of memory, and 1200 MB is the most it may have" in words]
    tally.count(held=len([words for words in lost if not words.startswith("ALARM")]) == 3)


@contextmanager
def _memory_group(limit: int) -> Iterator[Path]:
    """A memory group of the kernel's (cgroup v1) with a limit; skips where none can be made."""
    group = CGROUPS / f"delineate-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(limit))
    except OSError as error:
        pytest.skip(f"no memory group of cgroup v1 can be made here ({error}): the kernel's own OOM kill is not tried")
    try:
        yield group
    finally:
        with suppress(OSError):
            wait_until(lambda: not (group / "cgroup.procs").read_text(), 10, "the group to be empty")
            group.rmdir()


@pytest.mark.fault("F5", "never stuck")
def test_a_bench_that_the_kernel_kills_for_memory_costs_an_attempt_at_once(
    tmp_path: Path, database: Database, tally: Tally, times: Callable[[int, int], int]
) -> None:
    attempts = times(1, 3)
    box = Overseen(tmp_path, database, memory_mb=64 * 1024, attempts=attempts)
    box.receive(make_patient(tmp_path / "ct", "one", slices=6))
    with _memory_group(GB) as group:
        for attempt in range(1, attempts + 1):
            box.trap("volume_loaded", "eat")
            (group / "cgroup.procs").write_text(str(box.overseer.start().pid))
            box.overseer.attend(1)
            tally.count(held=box.cases()[0].attempts == attempt)
        box.overseer.stop()
    killed = "its process was killed, most likely because memory ran out"
    tally.count(held=box.cases()[0].state is CaseState.FAILED and killed in (box.cases()[0].sentence or ""))
    tally.count(held=len(box.alarms()) == 1)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return load_package(make_threshold_package(tmp_path_factory.mktemp("thresholds"), tile=(8, 12, 12)))


@pytest.fixture(scope="module")
def volume() -> CtVolume:
    return scan(
        lambda x, y, z: np.where(np.hypot(x, y) < 50, np.where(np.hypot(x, y) < 20, 400 + z, 40), -1000),
        series_grid("HFS", (20, 40, 40), (4.0, 4.0, 4.0)),
    )


@pytest.mark.fault("F6", "never wrong")
def test_whatever_a_full_gpu_has_to_give_up_the_masks_are_those_of_one_with_room(
    package: ModelPackage, volume: CtVolume, tally: Tally
) -> None:
    expected, _ = masks_and_words(WarmModel(package, [on_host(package)]), volume)
    rungs: set[str] = set()
    for tiles in (99, 3, 1, 0):
        for values in (10**12, 10):
            model = WarmModel(package, [on_device(package, tiles, values), on_host(package)])
            masks, words = masks_and_words(model, volume)
            rungs |= {*model.steps_taken, *words[1:]}
            tally.count(held=masks == expected)
    told: Any = "; ".join(rungs)
    assert "went on with 4" in told
    assert "went on with ONNX Runtime on the CPU" in told
    assert "added up in the host's memory" in told
    tally.figures["voxels that differ"] = "0"


@pytest.mark.fault("F7", "never stuck")
def test_a_step_that_hangs_is_ended_by_its_limit_and_the_case_is_tried_again(overseen: Overseen, tally: Tally) -> None:
    overseen.trap("segmented", "hang")
    overseen.overseer.attend(1)
    (case, _) = overseen.cases()
    tally.count(held=(case.state, case.attempts) == (CaseState.QUEUED, 1))
    tally.count(held=any("the step segment got no further in 2 s and was ended" in told for told in overseen.words(1)))
    overseen.overseer.attend(1)
    (case, _) = overseen.cases()
    tally.count(held=(case.state, case.attempts, overseen.deliveries()) == (CaseState.SENDING, 2, 1))


@pytest.mark.fault("F7", "never stuck")
def test_without_a_gpu_that_can_be_used_the_cpu_does_the_work(
    overseen: Overseen, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    tally.count(held=gpus() == {})
    overseen.overseer.attend(2)
    tally.count(held=overseen.cases()[1].state is CaseState.SENDING)
    tally.count(held=any("ONNX Runtime on the CPU" in told for told in overseen.words(2)))
