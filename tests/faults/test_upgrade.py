"""An update with cases in flight: the release before runs until it is stopped or killed, then this one goes on."""

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from appliance.dicom.identity import read_identity
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


@contextmanager
def _as_before(box: ApplianceBox, release: Path) -> Iterator[None]:
    """The box as it was: the release before, with those of our settings that it knows."""
    file = box.settings.folder / "appliance.toml"
    ours, box.code = file.read_text(), release
    while unknown := re.search(
        r"appliance\.toml, line (\d+): \S+ is not a setting", box.run("protocol", "list").stderr
    ):
        lines = file.read_text().splitlines()
        del lines[int(unknown[1]) - 1]
        file.write_text("\n".join(lines) + "\n")
    try:
        yield
    finally:
        file.write_text(ours)
        box.code = None


def _result_of(box: ApplianceBox, path: Path) -> str:
    """The result of the newest revision: the half of a series that came before the end may be one of its own."""
    uid = read_identity(path).series_instance_uid

    def kept() -> str | None:
        newest = box.cases(uid)[-1:]
        return newest[0].result_sop_instance_uid if newest and newest[0].state is CaseState.COMMITTED else None

    return str(wait_until(kept, WITHIN_S, f"the newest revision of {path.parent.name} to be kept"))


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
            with _as_before(box, release_before):
                box.start(with_rows=False)
                try:
                    box.send(done)
                    wait_until(lambda: "committed" in _states(box).values(), WITHIN_S, "a case of before")  # noqa: B023
                    box.send(busy)
                    wait_until(lambda: "segmenting" in _states(box).values(), WITHIN_S, "a busy worker")  # noqa: B023
                    box.send(waiting)
                    box.send(late[:6])
                    if end == "stopped":
                        box.process.terminate()
                        box.process.wait(WITHIN_S)
                finally:
                    box.kill()
            box.start()
            try:
                box.send(late[6:])
                for paths in (done, busy, waiting, late):
                    tally.count(held=pacs.received.count(_result_of(box, paths[0])) == 1)
                wait_until(lambda: not residue(box), WITHIN_S, "everything to be accounted for")  # noqa: B023
            finally:
                box.kill()


@pytest.mark.fault("F27", "never wrong")
def test_rows_of_a_newer_release_are_left_alone_and_receiving_goes_on(
    tmp_path: Path, release_before: Path, tally: Tally
) -> None:
    paths = make_patient(tmp_path / "ct", "newer")
    with FakePacs() as pacs:
        box = ApplianceBox(tmp_path / "box", pacs)
        box.database.migrate()
        head = box.database.check()
        with _as_before(box, release_before):
            for role in ("assemble", "deliver"):
                told = box.run(role)
                tally.count(held=told.returncode == 1 and f"schema {head}" in told.stderr)
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
            box.kill()


def _set_schema(box: ApplianceBox, revision: str) -> None:
    with box.database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
