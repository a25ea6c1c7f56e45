"""Whatever dies is started again, what was in flight is delivered exactly once, and a stop leaves nothing behind."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import JPEG2000Lossless

from appliance.records.tables import Case, CaseState
from appliance.running.roles import ROLES
from tests.support.appliance_box import ApplianceBox
from tests.support.ct_files import compress
from tests.support.fake_pacs import FakePacs
from tests.support.patients import make_patient, make_slow_patient
from tests.support.processes import assert_ended, kill_if_there
from tests.support.waiting import wait_until

DONE = (CaseState.DELIVERED, CaseState.COMMITTED)


@pytest.fixture(scope="module")
def own_box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApplianceBox]:
    """An appliance whose parts may be killed; each test leaves it running and whole."""
    with FakePacs() as pacs, ApplianceBox(tmp_path_factory.mktemp("box"), pacs) as box:
        yield box


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A seed for UIDs that no other test uses."""
    return str(request.node.name)


def _assert_delivered_once(box: ApplianceBox, path: Path) -> Case:
    case = box.wait_for_case(path, CaseState.COMMITTED)
    assert box.pacs.received.count(case.result_sop_instance_uid or "nothing") == 1
    assert len(box.cases(case.series_instance_uid)) == 1
    return case


def _is_segmenting(box: ApplianceBox, path: Path) -> bool:
    case = box.wait_for_case(path, CaseState.QUEUED, CaseState.SEGMENTING)
    return case.state is CaseState.SEGMENTING and bool(case.progress)


def _send_until_segmenting(box: ApplianceBox, folder: Path, name: str) -> list[Path]:
    paths = make_slow_patient(folder, name)
    box.send(paths)
    wait_until(lambda: _is_segmenting(box, paths[0]), 30, "a worker in the middle of the case")
    return paths


@pytest.mark.parametrize("role", ["listen", "assemble", "deliver", "broker"])
def test_a_killed_part_is_started_again_and_the_case_in_flight_is_delivered_once(
    own_box: ApplianceBox, tmp_path: Path, name: str, role: str
) -> None:
    victim = own_box.role(role)
    paths = make_patient(tmp_path / "ct", name)
    own_box.send(paths)
    victim.kill()
    _assert_delivered_once(own_box, paths[0])
    wait_until(lambda: own_box.role(role).pid != victim.pid, 15, f"another process for {role}")
    wait_until(own_box.is_ready, 15, "the listener")
    restarts = [entry.words for entry in own_box.box_trail() if entry.event == "process_restarted"]
    assert any(role in words and str(-signal.SIGKILL.value) in words for words in restarts)


def test_a_killed_assembler_takes_the_child_that_compares_images_with_it(
    own_box: ApplianceBox, tmp_path: Path, name: str
) -> None:
    paths = make_patient(tmp_path / "ct", name)
    own_box.send(paths)
    own_box.wait_for_case(paths[0], *DONE)
    own_box.send([compress(paths[0], JPEG2000Lossless)])
    assembler = own_box.role("assemble")
    children = wait_until(lambda: assembler.children(recursive=True), 15, "the child that compares")
    assembler.kill()
    assert_ended(children, within_s=5)


def test_a_worker_killed_in_the_middle_of_a_case_costs_one_attempt_and_no_result(
    own_box: ApplianceBox, tmp_path: Path, name: str
) -> None:
    paths = _send_until_segmenting(own_box, tmp_path / "ct", name)
    own_box.role("work").kill()
    case = _assert_delivered_once(own_box, paths[0])
    assert case.attempts == 2
    assert own_box.events(case).count("structure_set_written") == 1
    lost = next(entry for entry in own_box.trail(case) if entry.event == "work_lost")
    assert lost.actor == "reconciler"
    assert "no progress for 3 s" in lost.words


def test_a_broker_that_is_slow_to_answer_is_not_taken_for_dead(
    own_box: ApplianceBox, tmp_path: Path, name: str
) -> None:
    broker, listener = own_box.role("broker"), own_box.role("listen")
    broker.suspend()
    time.sleep(2.5)
    broker.resume()
    paths = make_patient(tmp_path / "ct", name)
    own_box.send(paths)
    _assert_delivered_once(own_box, paths[0])
    assert (own_box.role("broker").pid, own_box.role("listen").pid) == (broker.pid, listener.pid)


def test_a_stop_in_the_middle_of_a_case_is_prompt_and_the_case_goes_on_after_the_start(
    own_box: ApplianceBox, tmp_path: Path, name: str
) -> None:
    paths = _send_until_segmenting(own_box, tmp_path / "ct", name)
    own_box.stop()
    case = own_box.cases()[-1]
    assert case.state is CaseState.QUEUED
    assert "the worker was stopped" in [entry for entry in own_box.trail(case) if entry.event == "work_lost"][-1].words
    own_box.start()
    _assert_delivered_once(own_box, paths[0])


def test_a_second_start_on_the_same_data_is_refused_in_words(own_box: ApplianceBox) -> None:
    second = own_box.run("up")
    assert second.returncode == 1
    assert "another `delineate up` runs on" in second.stderr
    assert "Traceback" not in second.stderr
    assert own_box.is_ready()


def test_a_killed_supervisor_leaves_no_orphans_and_the_next_start_goes_on(
    own_box: ApplianceBox, tmp_path: Path, name: str
) -> None:
    broker = own_box.role("broker")
    children = [process for process in own_box.processes()[1:] if process.pid != broker.pid]
    assert len(children) >= len(ROLES) + 1, "each role, and the bench of the worker"
    paths = make_patient(tmp_path / "ct", name)
    own_box.send(paths)
    own_box.process.kill()
    own_box.process.wait()
    for damaged in (own_box.settings.data_dir / "broker").rglob("*.aof"):
        damaged.write_bytes(b"not an append-only file\n")  # its data is worth nothing: the rows are the truth
    try:
        assert_ended(children, within_s=10)
        own_box.start()
        assert_ended([broker], within_s=5)
    finally:
        for orphan in (*children, broker):
            kill_if_there(orphan)
    _assert_delivered_once(own_box, paths[0])


def test_a_part_that_cannot_run_is_tried_less_and_less_often(own_box: ApplianceBox) -> None:
    began_s = time.monotonic()
    for _ in range(2):
        victim = own_box.role("deliver")
        victim.kill()
        victim.wait(5)
        own_box.role("deliver")
    assert time.monotonic() - began_s > 2.0, "it waited 1 s, then 2 s"
