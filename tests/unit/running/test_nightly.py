"""What is done once a night: at its hour, once, and made up for."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from appliance.audit.trail import trail_of_box
from appliance.records import Database
from appliance.running.nightly import compare_with_pacs, is_due, remove_old_files
from appliance.spool import Spool
from tests.support.config_folder import make_settings


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def _utc(day: int, hour: int, minute: int = 0, *, month: int = 3) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=UTC)


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(
    ("last", "now", "due"),
    [
        (None, _utc(10, 12), True),
        (_utc(9, 2, 30), _utc(10, 1, 59), False),
        (_utc(9, 2, 30), _utc(10, 2, 1), True),
        (_utc(10, 2, 1), _utc(10, 2, 2), False),
        (_utc(10, 2, 1), _utc(10, 23, 59), False),
        (_utc(7, 2, 1), _utc(10, 0, 30), True),  # it was off for days
        (_utc(12, 2, 1), _utc(10, 3), True),  # by a clock that was ahead
        (_utc(28, 2, 30), _utc(29, 0, 59), False),  # the night in which an hour is left out
        (_utc(28, 2, 30), _utc(29, 1, 1), True),
    ],
)
def test_it_is_due_once_after_its_hour_of_each_local_day(last: datetime | None, now: datetime, *, due: bool) -> None:
    assert is_due(last, now, hour=3) is due


def test_both_duties_are_done_once_a_night(tmp_path: Path, database: Database, spool: Spool) -> None:
    settings = make_settings(tmp_path)
    for hours in range(0, 49, 4):
        now = _utc(10, 12) + timedelta(hours=hours)
        for duty in (compare_with_pacs, remove_old_files):
            duty(settings, database, spool, now)
    with database.reading() as tx:
        events = [entry.event for entry in trail_of_box(tx, 20)]
    assert sorted(events) == ["reconciled"] * 3 + ["retention_kept"] * 3
