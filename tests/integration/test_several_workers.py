"""Two real workers share a case of two models; whichever of them is killed, one structure set comes of it, the same."""

import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from appliance.records import Database, queries
from appliance.records.tables import Case, CaseState, Part, PartState, ResultKind
from appliance.spool import Spool
from tests.support.appliance_box import ApplianceBox
from tests.support.fake_pacs import FakePacs
from tests.support.patients import make_slow_patient
from tests.support.waiting import wait_until
from tests.support.worker_site import queue_up, without_times

SHAPE = (20, 96, 96)
"""Slow for two models, and not too slow for one worker alone."""

Alone = Callable[[list[Path]], bytes]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApplianceBox]:
    """An appliance with two workers, which may be killed; each test leaves both running."""
    with FakePacs() as pacs:
        tables = {"worker": {"devices": ["cpu", "cpu"]}}
        with ApplianceBox(tmp_path_factory.mktemp("pair"), pacs, tables) as box:
            yield box


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A seed for UIDs that no other test uses."""
    return str(request.node.name)


@pytest.fixture
def alone(pair: ApplianceBox, database: Database, spool: Spool) -> Alone:
    """Makes the structure set of a series with one worker that nobody helps, on rows and a spool of its own."""

    def _alone(paths: list[Path]) -> bytes:
        site = queue_up(pair.settings, database, spool, paths)
        site.attend()
        return site.content(ResultKind.RTSTRUCT)

    return _alone


def _send(box: ApplianceBox, paths: list[Path]) -> None:
    wait_until(lambda: len(_workers(box)) == 2, 30, "both workers")
    box.send(paths)


def _workers(box: ApplianceBox) -> set[int]:
    """Process IDs of the workers."""
    workers = set()
    for process in box.processes()[1:]:
        with suppress(psutil.NoSuchProcess):  # it has just ended
            if "work" in process.cmdline():
                workers.add(process.pid)
    return workers


def _parts(box: ApplianceBox, path: Path) -> dict[str, Part]:
    case = box.wait_for_case(path, CaseState.QUEUED, CaseState.SEGMENTING)
    with box.database.reading() as tx:
        return {part.model: part for part in queries.parts_of(tx, case.id)}


def _is_at(part: Part | None) -> bool:
    """In the middle of it."""
    return part is not None and part.state is PartState.WORKING and bool(part.progress.get("done"))


def _kill(worker: str | None) -> None:
    psutil.Process(int((worker or "").rsplit("-", 1)[1])).send_signal(signal.SIGKILL)


def _assert_one_result(box: ApplianceBox, path: Path, expected: bytes) -> Case:
    case = box.wait_for_case(path, CaseState.COMMITTED)
    uid = case.result_sop_instance_uid or "nothing"
    assert box.pacs.received.count(uid) == 1
    made = box.spool.result(f"{uid}.dcm")
    assert made is not None
    assert without_times(made) == without_times(expected), box.story(case)
    with box.database.reading() as tx:
        assert list(queries.parts_of(tx, case.id)) == []
    assert list((box.spool.root / "parts").iterdir()) == []
    return case


def _segmented_by(box: ApplianceBox, case: Case) -> list[tuple[str, str]]:
    """Which worker asked which model, in order."""
    return [(entry.actor, entry.words.split()[2]) for entry in box.trail(case) if entry.event == "segmented"]


def test_two_workers_share_a_case_and_the_result_is_that_of_one(
    pair: ApplianceBox, tmp_path: Path, name: str, alone: Alone
) -> None:
    paths = make_slow_patient(tmp_path / "ct", name, "CHEST", SHAPE)
    _send(pair, paths)
    both = wait_until(lambda: _all_at_work(pair, paths[0]), 30, "two workers at one case")
    assert len({part.lease_owner for part in both.values()}) == 2
    progress = pair.wait_for_case(paths[0], CaseState.SEGMENTING).progress
    assert [one["model"] for one in progress["models"]] == ["slow", "dense"]
    case = _assert_one_result(pair, paths[0], alone(paths))
    asked = _segmented_by(pair, case)
    assert sorted(model for _, model in asked) == ["dense", "thresholds"]
    assert len({worker for worker, _ in asked}) == 2


def _all_at_work(box: ApplianceBox, path: Path) -> dict[str, Part]:
    parts = _parts(box, path)
    return parts if len(parts) == 2 and all(map(_is_at, parts.values())) else {}


def test_a_helper_killed_in_the_middle_of_its_part_costs_time_and_nothing_else(
    pair: ApplianceBox, tmp_path: Path, name: str, alone: Alone
) -> None:
    paths = make_slow_patient(tmp_path / "ct", name, "CHEST", SHAPE)
    _send(pair, paths)
    both = wait_until(lambda: _all_at_work(pair, paths[0]), 30, "two workers at one case")
    case = pair.wait_for_case(paths[0], CaseState.SEGMENTING)
    (helper,) = {part.lease_owner for part in both.values()} - {case.lease_owner}
    _kill(helper)
    case = _assert_one_result(pair, paths[0], alone(paths))
    assert case.attempts == 1, "the lead has kept the case"
    assert {worker for worker, _ in _segmented_by(pair, case)} != {helper}
    assert any(helper in entry.words for entry in pair.trail(case) if entry.event == "part_lost")


def test_a_lead_killed_after_one_part_was_done_leaves_that_part_to_the_next(
    pair: ApplianceBox, tmp_path: Path, name: str, alone: Alone
) -> None:
    paths = make_slow_patient(tmp_path / "ct", name, "NECK", SHAPE)
    _send(pair, paths)

    def helper_is_done() -> bool:
        parts = _parts(pair, paths[0])
        return len(parts) == 2 and parts["thresholds"].state is PartState.DONE and _is_at(parts["slow"])

    wait_until(helper_is_done, 30, "one part done and the other in work")
    case = pair.wait_for_case(paths[0], CaseState.SEGMENTING)
    first_lead = case.lease_owner
    _kill(first_lead)
    case = _assert_one_result(pair, paths[0], alone(paths))
    assert case.attempts == 2
    asked = _segmented_by(pair, case)
    assert len(asked) == 2, "no model was asked twice"
    assert first_lead not in {worker for worker, _ in asked}
