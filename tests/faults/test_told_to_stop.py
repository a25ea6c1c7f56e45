"""SIGTERM at any moment: the process finishes or gives back what it has in hand and is gone within ten seconds."""

import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.records.tables import CaseState
from tests.support.appliance_box import STOP_WITHIN_S, ApplianceBox
from tests.support.fake_pacs import FakePacs
from tests.support.patients import make_patient, make_slow_patient
from tests.support.processes import assert_ended
from tests.support.proof import Tally
from tests.support.residue import residue
from tests.support.waiting import wait_until

PARTS = ("work", "assemble", "deliver", "tend")
WITHIN_S = 120.0


@pytest.fixture
def box(tmp_path: Path) -> Iterator[ApplianceBox]:
    with FakePacs() as pacs, ApplianceBox(tmp_path / "box", pacs, {"worker": {"lease_s": 30.0}}) as box:
        yield box


def _stop_part(box: ApplianceBox, role: str) -> bool:
    """Whether the process ended in time, with 0, and holds no case."""
    process, before = box.role(role), len(_deaths(box, role))
    process.send_signal(signal.SIGTERM)
    assert_ended([process], within_s=STOP_WITHIN_S)
    last = wait_until(lambda: _deaths(box, role)[before:], 30, f"the supervisor to note the end of {role}")[-1]
    holds = any((case.lease_owner or "").endswith(f"-{process.pid}") for case in box.cases())
    return "exit code 0 " in last and not holds


def _deaths(box: ApplianceBox, role: str) -> list[str]:
    return [e.words for e in box.box_trail() if e.event == "process_restarted" and e.words.startswith(f"{role} ")]


def _all_delivered_once(box: ApplianceBox, series: list[list[Path]]) -> None:
    for paths in series:
        case = box.wait_for_case(paths[0], CaseState.COMMITTED, timeout_s=WITHIN_S)
        assert box.pacs.received.count(case.result_sop_instance_uid or "nothing") == 1
        assert box.events(case).count("structure_set_written") == 1
        assert case.attempts == 1, "a stop is not held against the case"
    wait_until(lambda: not residue(box), WITHIN_S, "everything to be accounted for")


@pytest.mark.fault("F30", "never stuck")
def test_a_part_that_is_told_to_stop_gives_back_what_it_has_and_ends_with_success(
    box: ApplianceBox, tmp_path: Path, tally: Tally, times: Callable[[int, int], int]
) -> None:
    dice, series = random.Random(30), []
    for number in range(times(4, 48)):
        role = PARTS[number % len(PARTS)]
        make = make_slow_patient if role == "work" else make_patient
        series.append(make(tmp_path / str(number), f"part{number}"))
        box.send(series[-1])
        if role == "work":
            wait_until(lambda: any(case.state is CaseState.SEGMENTING for case in box.cases()), 60, "a worker at work")
        time.sleep(dice.uniform(0, 1.5))
        tally.count(held=_stop_part(box, role))
    _all_delivered_once(box, series)


@pytest.mark.fault("F30", "never lose")
def test_a_whole_box_that_is_told_to_stop_at_any_moment_goes_on_where_it_was(
    box: ApplianceBox, tmp_path: Path, tally: Tally, times: Callable[[int, int], int]
) -> None:
    dice, series = random.Random(31), []
    for number in range(times(1, 50)):
        series.append(make_slow_patient(tmp_path / str(number), f"whole{number}", shape=(20, 96, 96)))
        box.send(series[-1])
        time.sleep(dice.uniform(0, 4))
        box.stop()
        tally.count(held=not any(case.lease_owner for case in box.cases()))
        box.start()
    _all_delivered_once(box, series)
