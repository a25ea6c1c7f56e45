"""The caretaker: each duty by itself, again and again; none stops another, and none stops unnoticed."""

import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from appliance.audit.signing import signed_heads
from appliance.errors import ApplianceError, SettingsError
from appliance.records import Database
from appliance.records.session import DatabaseUnavailable
from appliance.running.caretaker import Caretaker, Duty, DutyBroke
from appliance.running.roles import duties_of
from appliance.settings import Settings
from appliance.spool import Spool
from tests.support.config_folder import make_settings
from tests.support.rows import NOON

LONG_S = 60.0
"""Only ends a test that hangs."""


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Set at the end: lets go of duties that hang."""
    event = threading.Event()
    yield event
    event.set()


def rounds(count: int, stop: threading.Event, problem: BaseException | None = None) -> Callable[[datetime], object]:
    """Work that stops everything after so many rounds, each of which fails with the problem."""
    left = [count]

    def work(_now: datetime) -> None:
        left[0] -= 1
        if left[0] <= 0:
            stop.set()
        if problem is not None:
            raise problem

    return work


@pytest.mark.parametrize("problem", [OSError("disk"), SettingsError("key"), ApplianceError("any"), None])
def test_a_duty_is_done_again_and_again_whether_it_failed_or_not(problem: Exception | None) -> None:
    stop = threading.Event()
    Caretaker([Duty("one", 0.0, rounds(5, stop, problem))]).run(stop)


def test_a_duty_that_fails_or_hangs_does_not_stop_the_others(release: threading.Event) -> None:
    stop = threading.Event()
    failing = Duty("failing", 0.0, rounds(10**9, stop, OSError("disk")))
    hanging = Duty("hanging", 0.0, lambda _now: release.wait(LONG_S))
    Caretaker([failing, hanging, Duty("well", 0.0, rounds(20, stop))]).run(stop)


def test_a_database_that_is_away_ends_the_process_so_that_it_is_started_again() -> None:
    stop = threading.Event()
    away = Duty("away", 0.0, rounds(10**9, stop, DatabaseUnavailable("gone")))
    with pytest.raises(DatabaseUnavailable, match="gone"):
        Caretaker([Duty("well", LONG_S, lambda _now: None), away]).run(stop)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_failure_that_nobody_foresaw_ends_the_process_and_names_the_duty() -> None:
    stop = threading.Event()
    broken = Duty("sign_trail", 0.0, rounds(10**9, stop, ZeroDivisionError()))
    with pytest.raises(DutyBroke, match="sign_trail failed"):
        Caretaker([Duty("well", LONG_S, lambda _now: None), broken]).run(stop)


def test_it_stops_at_once_between_two_rounds_and_soon_when_duties_hang(release: threading.Event) -> None:
    stop = threading.Event()
    begun = threading.Barrier(3)

    def hang(_now: datetime) -> None:
        begun.wait(LONG_S)
        release.wait(LONG_S)

    duties = [Duty("resting", 3_600.0, lambda _now: None), Duty("a", 0.0, hang), Duty("b", 0.0, hang)]
    running = threading.Thread(target=Caretaker(duties).run, args=(stop,))
    running.start()
    begun.wait(LONG_S)
    stop.set()
    running.join(LONG_S)
    assert not running.is_alive()


def test_the_trail_is_signed_and_told_by_the_process_that_tends(
    database: Database, spool: Spool, tmp_path: Path
) -> None:
    settings: Settings = make_settings(tmp_path)
    duties = {duty.name: duty for duty in duties_of(settings, database, spool)}
    assert {"sign_trail", "tell_collector"} <= duties.keys()
    for duty in duties.values():
        duty.work(NOON)
        duty.work(NOON)
    assert [head.day for head in signed_heads(database, None)] == ["2026-01-02"]
