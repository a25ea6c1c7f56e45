"""An update with cases in flight: the release before runs until it is stopped or killed, then this one goes on."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from appliance.records.tables import CaseState
from tests.support.appliance_box import ApplianceBox
from tests.support.fake_pacs import FakePacs
from tests.support.patients import make_patient, make_slow_patient
from tests.support.proof import Tally
from tests.support.residue import residue
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
BEFORE = "0fbaecf0d7c56d34b00767b90df2d7ccac7816d7"
"""The last commit of the release before this one."""

WITHIN_S = 120.0


@pytest.fixture(scope="module")
def release_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its whole tree, from the history."""
    folder = tmp_path_factory.mktemp("before")
    told = subprocess.run(["git", "archive", BEFORE, "appliance", "models"], cwd=ROOT, capture_output=True, check=False)
    if told.returncode:
        pytest.skip(f"commit {BEFORE[:7]} is not in this clone: an update cannot be tried (git fetch --unshallow)")
    subprocess.run(["tar", "-x"], cwd=folder, input=told.stdout, check=True)
    return folder


def _states(box: ApplianceBox) -> dict[str, str]:
    """The state of each series, whatever release the schema is of."""
    try:
        with box.database.engine.connect() as connection:
            rows = connection.execute(text("SELECT series_instance_uid, state FROM cases ORDER BY revision"))
            return {uid: state for uid, state in rows}  # noqa: C416 - rows are no pairs to the type checker
    except SQLAlchemyError:
        return {}


@pytest.mark.fault("F27", "never lose")
@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_cases_in_flight_when_the_box_is_updated_are_finished_by_the_new_release(
    tmp_path: Path, release_before: Path, tally: Tally, times: Callable[[int, int], int], end: str
) -> None:
    for number in range(times(1, 10)):
        folder = tmp_path / str(number)
        done, late = (make_patient(folder / name, f"{name}{number}") for name in ("done", "late"))
        waiting = make_patient(folder / "waiting", f"waiting{number}")
        busy = make_slow_patient(folder / "busy", f"busy{number}")
        with FakePacs() as pacs:
            box = ApplianceBox(folder / "box", pacs)
            box.code = release_before
            box.start(with_rows=False)
            try:
                box.send(done)
                wait_until(lambda: "committed" in _states(box).values(), WITHIN_S, "a case of the old release")  # noqa: B023
                box.send(busy)
                wait_until(lambda: "segmenting" in _states(box).values(), WITHIN_S, "a worker at work")  # noqa: B023
                box.send(waiting)
                box.send(late[:6])
                box.stop() if end == "stopped" else box.kill()
            finally:
                box.kill()
            box.code = None
            with box:
                box.send(late[6:])
                for paths in (done, busy, waiting, late):
                    case = box.wait_for_case(paths[0], CaseState.COMMITTED, timeout_s=WITHIN_S)
                    tally.count(held=pacs.received.count(case.result_sop_instance_uid or "nothing") == 1)
                wait_until(lambda: not residue(box), WITHIN_S, "everything to be accounted for")  # noqa: B023
        assert len(pacs.stored) == 4


@pytest.mark.fault("F27", "never wrong")
def test_rows_of_a_newer_release_are_left_alone_and_receiving_goes_on(
    tmp_path: Path, release_before: Path, tally: Tally
) -> None:
    paths = make_patient(tmp_path / "ct", "newer")
    with FakePacs() as pacs:
        box = ApplianceBox(tmp_path / "box", pacs)
        box.database.migrate()
        head = box.database.check()
        box.code = release_before
        for role in ("assemble", "deliver"):
            told = box.run(role)
            tally.count(held=told.returncode == 1 and f"schema {head}" in told.stderr)
        box.code = None
        _set_schema(box, "9999")
        told = box.run("assemble")
        tally.count(held=told.returncode == 1 and "of a newer release" in told.stderr)
        box.start(with_rows=False)
        try:
            box.send(paths)
            wait_until(lambda: "of a newer release" in box.log.read_text(), 30, "the supervisor to say so")
            tally.count(held=len(box.spool.arrivals()) > 0 and box.cases() == [])
            _set_schema(box, head)
            case = box.wait_for_case(paths[0], CaseState.COMMITTED, timeout_s=WITHIN_S)
            tally.count(held=pacs.received == [case.result_sop_instance_uid])
        finally:
            box.stop()


def _set_schema(box: ApplianceBox, revision: str) -> None:
    with box.database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
