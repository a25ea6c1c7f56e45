"""A backup of a box that goes on working, restored elsewhere: everything that was acknowledged before is in it."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest

from appliance.dicom.identity import read_identity
from appliance.records.tables import CaseState
from tests.support.appliance_box import ApplianceBox
from tests.support.fake_pacs import FakePacs
from tests.support.patients import make_patient
from tests.support.proof import Tally
from tests.support.real_parts import PostgreSql
from tests.support.residue import residue
from tests.support.waiting import wait_until


@pytest.fixture(params=["sqlite", "postgresql"])
def databases(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], dict[str, dict[str, Any]]]:
    """The tables of a box's settings with a database of its own, by name."""
    if request.param == "sqlite":
        return lambda _: {}
    server: PostgreSql = request.getfixturevalue("postgresql")
    monkeypatch.setenv("PATH", str(server.programs), prepend=":")
    return lambda name: {"database": {"url": server.new_database(name)}}


class _Pushing:
    """A sender that goes on while others do something."""

    def __init__(self, box: ApplianceBox, series: list[list[Path]]) -> None:
        self.acknowledged: list[Path] = []
        self._box, self._series = box, series
        self._thread = threading.Thread(target=self._push)

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: self.acknowledged, 30, "the first series")
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def _push(self) -> None:
        for paths in self._series:
            for path in paths:
                self._box.send([path])
                self.acknowledged.append(path)


@pytest.mark.fault("F28", "never lose")
def test_a_box_restored_from_a_backup_made_in_the_middle_of_work_accounts_for_everything(
    tmp_path: Path,
    databases: Callable[[str], dict[str, dict[str, Any]]],
    tally: Tally,
    times: Callable[[int, int], int],
) -> None:
    queued_again = 0
    for number in range(times(1, 6)):
        folder = tmp_path / str(number)
        early = [make_patient(folder / f"early{n}", f"early{n}") for n in range(2)]
        later = [make_patient(folder / "later", "later")]
        with FakePacs() as pacs:
            with ApplianceBox(folder / "first", pacs, databases(f"{tmp_path.name} {number} first")) as box:
                box.send(early[0])
                box.wait_for_case(early[0][0], CaseState.COMMITTED)
                box.send(early[1])
                with _Pushing(box, later) as pushing:
                    before = [*early[0], *early[1], *pushing.acknowledged]
                    told = box.run("backup", str(folder / "backup"))
                assert told.returncode == 0, told.stderr
            restored = ApplianceBox(folder / "second", pacs, databases(f"{tmp_path.name} {number} second"))
            told = restored.run("restore", str(folder / "backup"))
            assert told.returncode == 0, told.stderr
            assert "0 files are missing" in told.stdout
            queued_again += int(told.stdout.partition(" objects that came later")[0].split()[-1])
            with restored:
                for path in before:
                    uid = read_identity(path).sop_instance_uid
                    tally.count(held=_is_there(restored, uid))
                for paths in early:
                    case = restored.wait_for_case(paths[0], CaseState.COMMITTED)
                    assert case.result_sop_instance_uid in pacs.stored
                wait_until(lambda: not residue(restored), 60, "everything to be accounted for")  # noqa: B023
            assert len(pacs.stored) <= len(early) + len(later), "sent again under the same UID, if at all"
    tally.figures["objects came after the rows were copied and were queued again"] = str(queued_again)


def _is_there(box: ApplianceBox, sop_instance_uid: str) -> bool:
    def found() -> bool:
        return any(one.sop_instance_uid == sop_instance_uid for one in box.all_instances())

    wait_until(found, 30, f"{sop_instance_uid}")
    return True


@pytest.mark.fault("F28", "never wrong")
def test_half_a_backup_and_a_box_that_is_in_use_are_refused(tmp_path: Path, tally: Tally) -> None:
    with FakePacs() as pacs:
        box = ApplianceBox(tmp_path / "box", pacs)
        box.database.migrate()
        whole = tmp_path / "backup"
        within = box.run("backup", str(box.settings.data_dir / "backup"))
        tally.count(held=within.returncode == 1 and "on another disk" in within.stderr)
        assert box.run("backup", str(whole)).returncode == 0
        in_use = box.run("restore", str(whole))
        tally.count(held=in_use.returncode == 1 and "is not empty" in in_use.stderr)
        (whole / "backup.json").unlink()
        half = ApplianceBox(tmp_path / "other", pacs).run("restore", str(whole))
        tally.count(held=half.returncode == 1 and "no whole backup" in half.stderr)
        box.database.engine.dispose()
