"""A protocol that fetches by itself: when it is time, within bounds, and each series once."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from appliance.intake.arrivals import index_arrivals
from appliance.intake.fetch_schedule import TRIES, ScheduledFetch
from appliance.records import Database
from appliance.settings import Settings
from appliance.settings.fetching import Fetch
from appliance.spool import Spool
from tests.support.config_folder import BONES, make_settings
from tests.support.ct_files import all_slices, make_ct_series
from tests.support.fake_archive import FakeArchive
from tests.support.reading import READING
from tests.support.rows import NOON

SCANNED = datetime(2026, 1, 2, 12, tzinfo=UTC)  # the day of make_ct_series


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[FakeArchive]:
    pelvis = make_ct_series(tmp_path / "pelvis", slices=4, rows=8, columns=8)
    head = all_slices(BodyPartExamined="HEAD")
    more = make_ct_series(tmp_path / "head", slices=4, rows=8, columns=8, series="head", mutate=head)
    with FakeArchive([*pelvis, *more]) as archive:
        yield archive


class Rounds:
    """A schedule, and a clock that is told what time it is."""

    def __init__(self, folder: Path, database: Database, spool: Spool, archive: FakeArchive, **fetch: Any) -> None:
        bones = {**BONES, "destinations": ["archive"], "fetch": {"peer": "archive", **fetch}}
        tables = {"query": {"timeout_s": 3.0, "retrieve_timeout_s": 3.0}, "intake": {"free_space_reserve_mb": 1}}
        settings: Settings = make_settings(
            folder, tables, peers={"archive": archive.peer()}, protocols={"bones": bones}
        )
        self.steady_s = 0.0
        self.schedule = ScheduledFetch(
            settings, database, spool, settings.protocols["bones"], steady=lambda: self.steady_s
        )
        self._database, self._spool = database, spool

    def at(self, minutes: float) -> int:
        """Series that are fetched so many minutes after noon."""
        self.steady_s = 60.0 * minutes
        fetched = self.schedule.work(SCANNED + timedelta(minutes=minutes))
        while index_arrivals(self._database, self._spool, NOON, READING):
            pass
        return fetched


@pytest.fixture
def rounds(tmp_path: Path, database: Database, spool: Spool, archive: FakeArchive) -> Rounds:
    return Rounds(tmp_path, database, spool, archive, every_min=10)


def test_a_round_fetches_what_the_protocol_takes_once(rounds: Rounds, archive: FakeArchive) -> None:
    assert [rounds.at(0), rounds.at(9), rounds.at(10)] == [1, 0, 0]
    assert (len(archive.sent), archive.asked.count(("C-FIND", "STUDY"))) == (4, 2)


def test_what_comes_later_is_fetched_in_the_next_round(rounds: Rounds, archive: FakeArchive, tmp_path: Path) -> None:
    rounds.at(0)
    archive.hold(make_ct_series(tmp_path / "late", slices=4, rows=8, columns=8, series="late"))
    assert [rounds.at(5), rounds.at(10)] == [0, 1]


def test_studies_of_other_days_are_left(rounds: Rounds, archive: FakeArchive) -> None:
    two_days = 2 * 24 * 60
    assert rounds.at(two_days) == 0
    assert archive.sent == []


def test_no_more_series_than_allowed_are_fetched_in_a_round(
    tmp_path: Path, database: Database, spool: Spool, archive: FakeArchive
) -> None:
    for name in ("a", "b"):
        archive.hold(make_ct_series(tmp_path / name, slices=4, rows=8, columns=8, series=name))
    rounds = Rounds(tmp_path, database, spool, archive, every_min=10, max_series=2)
    assert [rounds.at(0), rounds.at(10), rounds.at(20)] == [2, 1, 0]


def test_rounds_at_given_times_happen_then_and_once(
    tmp_path: Path, database: Database, spool: Spool, archive: FakeArchive
) -> None:
    local = (SCANNED + timedelta(minutes=10)).astimezone()
    rounds = Rounds(tmp_path, database, spool, archive, at=[f"{local:%H:%M}"])
    assert [rounds.at(0), rounds.at(9.9), rounds.at(10.1), rounds.at(10.4)] == [0, 0, 1, 0]
    assert archive.asked.count(("C-FIND", "STUDY")) == 1


def test_an_archive_that_is_away_is_asked_again_in_the_next_round(rounds: Rounds, archive: FakeArchive) -> None:
    archive.behaviour.find_status = 0xA700
    assert rounds.at(0) == 0
    archive.behaviour.find_status = 0
    assert rounds.at(10) == 1


def test_a_series_that_never_comes_is_tried_a_few_times(rounds: Rounds, archive: FakeArchive) -> None:
    archive.behaviour.drops = lambda _uid: True
    for count in range(TRIES + 3):
        rounds.at(10 * count)
    assert archive.asked.count(("C-GET", "SERIES")) == TRIES


@pytest.mark.parametrize(
    ("between", "hour", "is_open"),
    [
        (("18:00", "06:00"), 23, True),
        (("18:00", "06:00"), 5, True),
        (("18:00", "06:00"), 6, False),
        (("18:00", "06:00"), 12, False),
        (("08:00", "17:00"), 12, True),
        (("08:00", "17:00"), 17, False),
    ],
)
def test_the_part_of_the_day_may_go_over_midnight(between: tuple[str, str], hour: int, is_open: bool) -> None:
    fetch = Fetch(peer="archive", every_min=10, between=between)
    assert fetch.is_open(datetime(2026, 1, 2, hour, tzinfo=UTC)) is is_open
