"""The database and the broker go away, slow down and lose things: receiving goes on, and everything is caught up."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from appliance.casework.case import FINAL
from appliance.casework.tasks import doorbell, ring
from appliance.records.tables import Case, CaseState
from tests.support.appliance_box import ApplianceBox
from tests.support.fake_pacs import FakePacs
from tests.support.patients import make_patient, make_slow_patient
from tests.support.proof import Tally
from tests.support.real_parts import PostgreSql, RedisServer
from tests.support.residue import residue
from tests.support.slow_line import SlowLine
from tests.support.waiting import wait_until

CAUGHT_UP_WITHIN_S = 120.0


class Outside:
    """A box whose database and broker are servers of their own, the database at the end of a line."""

    def __init__(self, folder: Path, postgresql: PostgreSql, stack: ExitStack) -> None:
        self.postgresql = postgresql
        url = self.postgresql.new_database("box")
        (folder / "line").mkdir()
        self.line = stack.enter_context(SlowLine(folder / "line" / ".s.PGSQL.5432", self.postgresql.socket))
        self.redis = RedisServer(folder)
        self.redis.start()
        stack.callback(self.redis.stop)
        through_the_line = url.partition("?host=")[0] + f"?host={folder / 'line'}"
        urls: dict[str, Any] = {"database": {"url": through_the_line}, "broker": {"url": self.redis.url}}
        self.box = ApplianceBox(folder / "box", stack.enter_context(FakePacs()), urls)
        stack.enter_context(self.box)

    def delivered_once(self, paths: list[Path]) -> bool:
        """Whether the series ends kept by the PACS, sent to it once, from one case."""
        case = self.box.wait_for_case(paths[0], CaseState.COMMITTED, timeout_s=CAUGHT_UP_WITHIN_S)
        once = self.box.pacs.received.count(case.result_sop_instance_uid or "nothing") == 1
        return once and len(self.box.cases(case.series_instance_uid)) == 1


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory, postgresql: PostgreSql) -> Iterator[Outside]:
    with ExitStack() as stack:
        yield Outside(tmp_path_factory.mktemp("outside"), postgresql, stack)


@contextmanager
def _down(outside: Outside) -> Iterator[None]:
    outside.postgresql.fail()
    try:
        yield
    finally:
        outside.postgresql.start()


@contextmanager
def _restarted(outside: Outside) -> Iterator[None]:
    outside.postgresql.fail()
    outside.postgresql.start()
    yield


@contextmanager
def _cut(outside: Outside) -> Iterator[None]:
    outside.line.cut()
    yield


@contextmanager
def _slow(outside: Outside) -> Iterator[None]:
    outside.line.delay_s = 0.02
    try:
        yield
        wait_until(lambda: all(case.state in FINAL for case in outside.box.cases()), CAUGHT_UP_WITHIN_S, "all cases")
    finally:
        outside.line.delay_s = 0.0


@contextmanager
def _silent(outside: Outside) -> Iterator[None]:
    outside.line.hold()
    try:
        yield
        time.sleep(3)
    finally:
        outside.line.flow()


@contextmanager
def _read_only(outside: Outside) -> Iterator[None]:
    outside.postgresql.tell("default_transaction_read_only", "on")
    try:
        yield
    finally:
        outside.postgresql.tell("default_transaction_read_only", None)


Fault = Callable[[Outside], AbstractContextManager[None]]
FAULTS: tuple[Fault, ...] = (_down, _restarted, _cut, _slow, _silent, _read_only)


@pytest.mark.fault("F9", "never lose")
@pytest.mark.parametrize(
    "fault", [_down, _restarted, _cut, _slow, _silent, _read_only], ids=lambda fault: fault.__name__
)
def test_whatever_the_database_does_receiving_goes_on_and_everything_is_caught_up_once(
    outside: Outside, tmp_path: Path, tally: Tally, times: Callable[[int, int], int], fault: Fault
) -> None:
    listener = outside.box.role("listen").pid
    for number in range(times(1, 8)):
        series = [make_patient(tmp_path / f"{number}{when}", f"{fault.__name__}{number}{when}") for when in "ab"]
        outside.box.send(series[0])
        with fault(outside):
            outside.box.send(series[1])
            assert outside.box.is_ready()
        for paths in series:
            tally.count(held=outside.delivered_once(paths))
    assert outside.box.role("listen").pid == listener, "it never stopped"
    _assert_nothing_is_left_over(outside.box)


@pytest.mark.fault("F9", "never stuck")
def test_a_box_that_starts_without_its_database_receives_at_once_and_works_as_soon_as_it_is_there(
    outside: Outside, tmp_path: Path, tally: Tally, times: Callable[[int, int], int]
) -> None:
    for number in range(times(1, 5)):
        outside.box.stop()
        paths = make_patient(tmp_path / str(number), f"start{number}")
        with _down(outside):
            outside.box.start(with_rows=False)
            outside.box.send(paths)
        tally.count(held=outside.delivered_once(paths))
    _assert_nothing_is_left_over(outside.box)


def _assert_nothing_is_left_over(box: ApplianceBox) -> None:
    wait_until(lambda: not residue(box), CAUGHT_UP_WITHIN_S, "everything to be accounted for")


@pytest.mark.fault("F11", "never stuck")
def test_whatever_becomes_of_the_messages_every_case_is_worked_on_once(
    outside: Outside, tmp_path: Path, tally: Tally, times: Callable[[int, int], int]
) -> None:
    dice = random.Random(11)
    for number in range(times(1, 10)):
        lost = _sent_behind_a_slow_one(outside, tmp_path / f"lost{number}", f"lost{number}")
        outside.redis.forget()
        outside.redis.stop()
        doubled = [make_patient(tmp_path / f"doubled{number}-{n}", f"doubled{number}.{n}") for n in range(3)]
        for paths in doubled:
            outside.box.send(paths)
        cases = [outside.box.wait_for_case(paths[0], CaseState.QUEUED) for paths in doubled]
        outside.redis.start()
        app = doorbell(outside.box.settings)
        for case_id in dice.sample([case.id for case in cases] * 2, 2 * len(cases)):
            assert ring(app, case_id)
        for paths in (*doubled, *lost):
            tally.count(held=outside.delivered_once(paths) and _worked_on_once(outside.box, paths))
    _assert_nothing_is_left_over(outside.box)


def _sent_behind_a_slow_one(outside: Outside, folder: Path, name: str) -> list[list[Path]]:
    """Series whose messages wait at the broker, because the worker has its hands full."""
    slow = make_slow_patient(folder / "slow", f"{name} slow")
    outside.box.send(slow)
    wait_until(
        lambda: outside.box.wait_for_case(slow[0], *CaseState).state is CaseState.SEGMENTING, 60, "a busy worker"
    )
    waiting = [make_patient(folder / str(n), f"{name} {n}") for n in range(2)]
    for paths in waiting:
        outside.box.send(paths)
    for paths in waiting:
        wait_until(lambda p=paths: _was_rung_for(outside.box, p), 30, "the bell")
    return [slow, *waiting]


def _was_rung_for(box: ApplianceBox, paths: list[Path]) -> bool:
    case: Case = box.wait_for_case(paths[0], *CaseState)
    return case.rung_at is not None


def _worked_on_once(box: ApplianceBox, paths: list[Path]) -> bool:
    events = box.events(box.wait_for_case(paths[0], CaseState.COMMITTED))
    return events.count("structure_set_written") == events.count("work_started") == 1
