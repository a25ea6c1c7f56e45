"""F4, and every process that can die: whatever is killed, whenever, each series gives one structure set, the same."""

import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from appliance.dicom.identity import read_identity
from appliance.failpoint import TRAPS
from appliance.records.tables import CaseState
from tests.support.appliance_box import ApplianceBox
from tests.support.fake_pacs import FakePacs
from tests.support.patients import make_patient, make_slow_patient
from tests.support.processes import kill_if_there
from tests.support.proof import Tally
from tests.support.real_parts import PostgreSql
from tests.support.waiting import wait_until

STEPS_OF_THE_WORK = (
    "case_taken",
    "volume_loaded",
    "segmented",
    "masks_decided",
    "traced",
    "result_written",
    "handed_over",
)
STEPS_OF_THE_INTAKE = ("arrival_settled", "arrival_committed", "arrival_released", "series_completed")
STEPS_OF_THE_DELIVERY = ("delivery_due", "delivery_sent", "delivery_accepted", "commitment_noted", "commitment_asked")
VICTIMS = ("bench", "work", "assemble", "deliver", "broker", "database")
WITHIN_S = 240.0
MANY = 100_000
"""Attempts: here it is not the case that kills."""


@dataclass
class Line:
    """A box on a database that can be killed, a PACS, and traps for the processes of the box."""

    box: ApplianceBox
    pacs: FakePacs
    postgresql: PostgreSql
    traps: Path
    folder: Path
    made: int = 0

    def send(self, *, slow: bool = False) -> Path:
        """Send another patient; the first of its files."""
        self.made += 1
        name = f"kills-{self.made}"
        shape = (16, 64, 64)
        paths = (
            make_slow_patient(self.folder / name, name, shape=shape) if slow else make_patient(self.folder / name, name)
        )
        wait_until(lambda: self._is_sent(paths), 60, "the listener to take a patient")
        return paths[0]

    def _is_sent(self, paths: list[Path]) -> bool:
        try:
            self.box.send(paths)
        except Exception:  # noqa: BLE001 - a sender tries again, whatever went wrong
            return False
        return True

    def arm(self, *places: str) -> None:
        """Whoever comes by one of these places dies, once."""
        for place in places:
            (self.traps / place).write_text("kill")

    def armed(self) -> list[str]:
        """Traps that have not sprung."""
        return [path.name for path in self.traps.iterdir()]

    def kill(self, victim: str) -> None:
        """kill -9; the database goes as with the power, and comes back."""
        if victim == "database":
            self.postgresql.fail()
            self.postgresql.start()
            return
        for process in self.box.processes()[1:]:
            try:
                words = process.cmdline()
            except psutil.Error:
                continue
            if victim in words or (victim == "broker" and words and "valkey" in words[0]):
                kill_if_there(process)

    def ended(self, first: Path) -> tuple[bool, bool]:
        """Whether a series has its structure set at the PACS, and whether there is more than one or another one."""
        case = self.box.wait_for_case(first, CaseState.COMMITTED, timeout_s=WITHIN_S)
        uid = case.result_sop_instance_uid or ""
        kept = self.pacs.stored.get(uid)
        made = self.box.spool.result(f"{uid}.dcm") or b""
        series = read_identity(first).series_instance_uid.encode()
        of_series = {each for each, content in self.pacs.stored.items() if series in content}
        there = kept is not None and _data_set(kept) == _data_set(made)
        once = of_series == {uid} and len(self.box.cases(case.series_instance_uid)) == 1
        return there, not once


def _data_set(file: bytes) -> bytes:
    """A file without preamble and File Meta Information, which each side writes for itself."""
    return file[144 + int.from_bytes(file[140:144], "little") :]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory, postgresql: PostgreSql) -> Iterator[Line]:
    folder = tmp_path_factory.mktemp("kills")
    (folder / "traps").mkdir()
    tables = {"database": {"url": postgresql.new_database("kills")}, "worker": {"attempts": MANY}}
    with ExitStack() as stack:
        patched = stack.enter_context(pytest.MonkeyPatch.context())
        patched.setenv(TRAPS, str(folder / "traps"))
        pacs = stack.enter_context(FakePacs())
        box = stack.enter_context(ApplianceBox(folder / "box", pacs, tables))
        yield Line(box, pacs, postgresql, folder / "traps", folder)


def _count(line: Line, tally: Tally, firsts: list[Path], kills: int) -> None:
    ended = [line.ended(first) for first in firsts]
    lost = sum(not there for there, _ in ended)
    doubled = sum(more for _, more in ended)
    tally.counted(kills, lost + doubled)
    tally.figures |= {"kills": str(kills), "cases": str(len(firsts)), "lost": str(lost), "doubled": str(doubled)}


@pytest.mark.fault("F4", "never twice")
def test_a_worker_killed_at_every_named_step_makes_one_structure_set(line: Line, tally: Tally) -> None:
    line.arm(*STEPS_OF_THE_WORK)
    first = line.send()
    case = line.box.wait_for_case(first, CaseState.COMMITTED, timeout_s=WITHIN_S)
    assert line.armed() == [], "it died at every step"
    tally.count(held=case.attempts == len(STEPS_OF_THE_WORK))
    _count(line, tally, [first], len(STEPS_OF_THE_WORK))


@pytest.mark.fault("F4", "never lose")
def test_a_worker_killed_at_random_moments_makes_one_structure_set_of_each_series(
    line: Line, tally: Tally, times: Callable[[int, int], int]
) -> None:
    kills = times(3, 50)
    dice = random.Random(4)
    firsts = [line.send(slow=True) for _ in range(1 + kills // 5)]
    for _ in range(kills):
        wait_until(lambda: line.box._find("bench"), 60, "a bench")
        time.sleep(dice.uniform(0.0, 2.5))
        line.kill("bench")
    _count(line, tally, firsts, kills)


@pytest.mark.fault("F4", "never lose")
def test_nothing_is_lost_or_doubled_whatever_is_killed_and_whenever(
    line: Line, tally: Tally, times: Callable[[int, int], int]
) -> None:
    kills = times(10, 300)
    dice = random.Random(300)
    steps = (*STEPS_OF_THE_INTAKE, *STEPS_OF_THE_DELIVERY)
    firsts: list[Path] = []
    for number in range(kills):
        if number % 2:
            line.arm(steps[number // 2 % len(steps)])
            firsts.append(line.send(slow=number % 4 == 1))
        else:
            line.kill(VICTIMS[number // 2 % len(VICTIMS)])
        time.sleep(dice.uniform(0.0, 1.5))
    firsts.append(line.send())
    _count(line, tally, firsts, kills - len(line.armed()))
    died = [entry.words for entry in line.box.box_trail() if entry.event == "process_restarted"]
    assert any(f"exit code {-signal.SIGKILL}" in words for words in died)
