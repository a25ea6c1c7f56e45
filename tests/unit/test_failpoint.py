"""Failpoints: nothing without a folder of traps, and each trap once."""

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from appliance.failpoint import TRAPS, failpoint
from tests.support.waiting import wait_until

COMES_BY = "from appliance.failpoint import failpoint; failpoint('here'); print('went on')"


@pytest.fixture
def traps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(TRAPS, str(tmp_path))
    return tmp_path


def _come_by() -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", COMES_BY], capture_output=True, text=True, timeout=60, check=False)


def test_without_a_folder_of_traps_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TRAPS, raising=False)
    failpoint("here")


def test_where_no_trap_is_set_nothing_happens(traps: Path) -> None:
    (traps / "elsewhere").write_text("kill")
    failpoint("here")
    assert (traps / "elsewhere").exists()


def test_a_trap_kills_whoever_comes_by_and_only_the_first(traps: Path) -> None:
    (traps / "here").write_text("kill\n")
    assert _come_by().returncode == -signal.SIGKILL
    again = _come_by()
    assert (again.returncode, again.stdout) == (0, "went on\n")


def test_a_trap_that_says_nothing_known_only_springs(traps: Path) -> None:
    (traps / "here").write_text("sneeze")
    failpoint("here")
    assert not (traps / "here").exists()


def test_whoever_hangs_stays_until_it_is_ended(traps: Path) -> None:
    (traps / "here").write_text("hang")
    with subprocess.Popen([sys.executable, "-c", COMES_BY], stdout=subprocess.PIPE) as process:
        wait_until(lambda: not (traps / "here").exists(), 30, "the trap to spring")
        assert process.poll() is None
        process.kill()
        assert process.stdout is not None
        assert process.stdout.read() == b""


def test_whoever_eats_grows_until_it_is_ended(traps: Path) -> None:
    (traps / "here").write_text("eat")
    with subprocess.Popen([sys.executable, "-c", COMES_BY], stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: psutil.Process(process.pid).memory_info().rss > 200 << 20, 30, "it to grow")
        process.kill()
