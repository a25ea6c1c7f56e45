"""The PACS's own count of a series: a missing end is noticed, and a PACS that says nothing stops nobody."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from appliance.audit.trail import trail_of
from appliance.intake import finding
from appliance.intake.assembler import COUNT_AGAIN_S, Assembler
from appliance.intake.counting import Counting
from appliance.intake.fetching import MissingSlices
from appliance.records import Database
from appliance.records.tables import Case, CaseState, CountSign
from appliance.settings import Settings
from appliance.spool import Spool
from tests.support.arriving import arrive_all
from tests.support.config_folder import BONES, make_settings
from tests.support.ct_files import make_ct_series
from tests.support.fake_archive import Behaviour, FakeArchive
from tests.support.reading import READING
from tests.support.rows import NOON

QUIET_S, WAIT_S, COUNT_WAIT_S = 30.0, 600.0, 20.0
SLICES = 8


@dataclass
class Line:
    """An assembler and the duty that asks the archive; time passes when it is told to."""

    settings: Settings
    database: Database
    spool: Spool
    steady_s: float = 0.0
    assembler: Assembler = field(init=False)
    counting: Counting = field(init=False)

    def __post_init__(self) -> None:
        self.assembler = Assembler(self.settings, self.database, self.spool, READING, steady=lambda: self.steady_s)
        self.counting = Counting(self.settings, self.database, "archive")

    def at(self, seconds: float, *, ask: bool = True) -> None:
        """One moment: everything that is due happens."""
        self.steady_s = seconds
        for _ in range(3):
            while self.assembler.sweep(NOON + timedelta(seconds=seconds)):
                pass
            if ask:
                self.counting.work(NOON + timedelta(seconds=seconds))

    def until_quiet(self, *, ask: bool = True) -> None:
        for seconds in (0, QUIET_S / 2, QUIET_S):
            self.at(seconds, ask=ask)

    @property
    def case(self) -> Case:
        with self.database.reading() as tx:
            return tx.query(Case).order_by(Case.id.desc()).first()

    @property
    def words(self) -> list[str]:
        with self.database.reading() as tx:
            return [entry.words for entry in trail_of(tx, self.case.id)]


@pytest.fixture
def ct(tmp_path: Path) -> list[Path]:
    return make_ct_series(tmp_path / "ct", slices=SLICES, rows=8, columns=8)


@pytest.fixture
def archive(ct: list[Path]) -> Iterator[FakeArchive]:
    with FakeArchive(ct) as archive:
        yield archive


def make_line(tmp_path: Path, database: Database, spool: Spool, archive: FakeArchive, **completion: Any) -> Line:
    tables = {
        "intake": {"series_quiet_s": QUIET_S, "incomplete_wait_s": WAIT_S},
        "query": {"timeout_s": 1.0},
    }
    bones = {**BONES, "destinations": ["archive"], "completion": {"count_peer": "archive", **completion}}
    settings = make_settings(tmp_path, tables, peers={"archive": archive.peer()}, protocols={"bones": bones})
    return Line(settings, database, spool)


@pytest.fixture
def line(tmp_path: Path, database: Database, spool: Spool, archive: FakeArchive) -> Line:
    return make_line(tmp_path, database, spool, archive)


def test_a_confirmed_count_costs_no_time_and_stands_in_the_trail(
    line: Line, ct: list[Path], archive: FakeArchive
) -> None:
    arrive_all(line.spool, ct)
    line.until_quiet()
    assert (line.case.state, line.case.count_sign) == (CaseState.QUEUED, CountSign.CONFIRMED)
    assert f"by quiet time, geometry and the count of archive ({SLICES})" in " / ".join(line.words)
    assert archive.asked == [("C-FIND", "SERIES")], "one question"


def test_a_missing_end_is_held_says_so_and_is_refused_in_the_end(line: Line, ct: list[Path]) -> None:
    arrive_all(line.spool, ct[:-2])
    line.until_quiet()
    assert (line.case.state, line.case.reason) == (CaseState.INCOMPLETE, "series_incomplete")
    assert f"{SLICES - 2} slices received, archive says {SLICES}" in (line.case.sentence or "")
    line.at(QUIET_S + WAIT_S - 1)
    assert line.case.state is CaseState.INCOMPLETE
    line.at(QUIET_S + WAIT_S)
    assert (line.case.state, line.case.reason) == (CaseState.REFUSED, "series_incomplete")


def test_the_missing_end_completes_the_series_when_it_comes(line: Line, ct: list[Path]) -> None:
    arrive_all(line.spool, ct[:-2])
    line.until_quiet()
    arrive_all(line.spool, ct[-2:])
    for seconds in (100, 100 + QUIET_S / 2, 100 + QUIET_S):
        line.at(seconds)
    assert (line.case.state, line.case.revision, line.case.count_sign) == (CaseState.QUEUED, 1, CountSign.CONFIRMED)


def test_a_count_that_the_pacs_corrects_completes_the_series_without_a_new_slice(
    line: Line, ct: list[Path], archive: FakeArchive
) -> None:
    arrive_all(line.spool, ct)
    archive.behaviour = Behaviour(told_count=SLICES + 5, knows_images=False)
    line.until_quiet()
    assert line.case.state is CaseState.INCOMPLETE
    archive.behaviour = Behaviour()
    line.at(QUIET_S + COUNT_AGAIN_S + 1)
    assert line.case.state is CaseState.QUEUED


def test_more_slices_here_than_the_pacs_says_is_fine_and_noted(
    line: Line, ct: list[Path], archive: FakeArchive
) -> None:
    archive.behaviour.told_count = SLICES - 3
    arrive_all(line.spool, ct)
    line.until_quiet()
    assert (line.case.state, line.case.count_sign) == (CaseState.QUEUED, CountSign.SURPLUS)
    assert f"archive counts {SLICES - 3}, fewer than are here" in " / ".join(line.words)


def test_images_are_counted_where_the_pacs_does_not_tell_how_many_there_are(
    line: Line, ct: list[Path], archive: FakeArchive
) -> None:
    archive.behaviour.tells_count = False
    arrive_all(line.spool, ct[:-1])
    line.until_quiet()
    assert (line.case.state, line.case.expected_slices) == (CaseState.INCOMPLETE, SLICES)
    assert archive.asked[:2] == [("C-FIND", "SERIES"), ("C-FIND", "IMAGE")]


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (Behaviour(find_status=0xA700), "C-FIND was answered 0xA700 (out of resources)"),
        (Behaviour(hangs=True), "C-FIND was answered nothing"),
        (Behaviour(tells_count=False, knows_images=False), "it does not understand the question"),
    ],
    ids=["fails", "hangs", "tells nothing"],
)
def test_a_series_goes_on_unconfirmed_when_the_count_cannot_be_had(
    line: Line, ct: list[Path], archive: FakeArchive, behaviour: Behaviour, words: str
) -> None:
    archive.behaviour = behaviour
    arrive_all(line.spool, ct)
    line.until_quiet()
    assert (line.case.state, line.case.count_sign) == (CaseState.QUEUED, CountSign.UNANSWERED)
    assert "count not confirmed" in " / ".join(line.words)
    assert words in (line.case.count_sentence or "")


def test_a_series_that_the_pacs_does_not_know_goes_on_unconfirmed(
    line: Line, ct: list[Path], archive: FakeArchive
) -> None:
    archive.files.clear()
    arrive_all(line.spool, ct)
    line.until_quiet()
    assert (line.case.state, line.case.count_sentence) == (CaseState.QUEUED, "archive: it does not know the series")


def test_nobody_waits_longer_than_the_protocol_says_for_an_answer(line: Line, ct: list[Path]) -> None:
    arrive_all(line.spool, ct)
    line.until_quiet(ask=False)
    line.at(QUIET_S + COUNT_WAIT_S - 1, ask=False)
    assert line.case.state is CaseState.RECEIVING
    line.at(QUIET_S + COUNT_WAIT_S, ask=False)
    assert (line.case.state, line.case.count_sign) == (CaseState.QUEUED, CountSign.UNANSWERED)
    assert line.counting.work(NOON) == 0, "nobody needs the answer any more"


def test_a_protocol_may_insist_on_the_count(
    tmp_path: Path, database: Database, spool: Spool, archive: FakeArchive, ct: list[Path]
) -> None:
    line = make_line(tmp_path, database, spool, archive, count="required")
    archive.behaviour = Behaviour(find_status=0xC000)
    arrive_all(spool, ct)
    line.until_quiet()
    assert (line.case.state, line.case.reason) == (CaseState.INCOMPLETE, "count_unknown")
    archive.behaviour = Behaviour()
    line.at(QUIET_S + COUNT_AGAIN_S + 1)
    assert line.case.state is CaseState.QUEUED


def test_a_protocol_may_do_without_the_count(
    tmp_path: Path, database: Database, spool: Spool, archive: FakeArchive, ct: list[Path]
) -> None:
    line = make_line(tmp_path, database, spool, archive, count="ignore")
    arrive_all(spool, ct[:-1])
    line.until_quiet()
    assert (line.case.state, archive.asked) == (CaseState.QUEUED, [])


def test_the_settings_of_the_protocol_hold_while_the_series_still_comes(
    tmp_path: Path, database: Database, spool: Spool, archive: FakeArchive, ct: list[Path]
) -> None:
    line = make_line(tmp_path, database, spool, archive, quiet_s=5.0, incomplete_wait_s=10.0)
    arrive_all(spool, ct[:-1])
    for seconds in (0, 4.9):
        line.at(seconds)
    assert (line.case.state, line.case.foreseen_protocol) == (CaseState.RECEIVING, "bones")
    line.at(5.0)
    assert line.case.state is CaseState.INCOMPLETE
    line.at(15.0)
    assert line.case.state is CaseState.REFUSED


@pytest.mark.parametrize("written", [b"many", b"-4  ", b"99999999999999999999", b"1e9 ", b"\xff\xfe", b"8\\8 ", b"0 "])
def test_nonsense_for_a_count_is_no_count_and_images_are_counted_instead(
    line: Line, ct: list[Path], archive: FakeArchive, written: bytes
) -> None:
    archive.behaviour.counts_in = written
    arrive_all(line.spool, ct[:-1])
    line.until_quiet()
    assert (line.case.state, line.case.expected_slices) == (CaseState.INCOMPLETE, SLICES)


def test_an_archive_that_never_stops_answering_is_left(
    line: Line, ct: list[Path], archive: FakeArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "MOST_ANSWERS", 50)
    archive.behaviour.endless = True
    arrive_all(line.spool, ct)
    line.until_quiet()
    assert line.case.state is CaseState.QUEUED
    assert "it gave more than 50 answers" in (line.case.count_sentence or "")


def test_missing_slices_are_fetched_where_the_protocol_says_so(
    tmp_path: Path, database: Database, spool: Spool, archive: FakeArchive, ct: list[Path]
) -> None:
    line = make_line(tmp_path, database, spool, archive, fetch_missing=True)
    missing = MissingSlices(line.settings, database, spool, "archive")
    arrive_all(spool, ct[:-3])
    line.until_quiet()
    assert line.case.state is CaseState.INCOMPLETE
    assert missing.work(NOON) == 3
    for seconds in (100, 100 + QUIET_S / 2, 100 + QUIET_S):
        line.at(seconds)
    assert (line.case.state, line.case.slices, line.case.count_sign) == (
        CaseState.QUEUED,
        SLICES,
        CountSign.CONFIRMED,
    )
    assert "archive was asked for 3 missing slices; 3 came" in line.words
    assert missing.work(NOON) == 0


def test_missing_slices_are_not_fetched_unless_the_protocol_says_so(line: Line, ct: list[Path]) -> None:
    arrive_all(line.spool, ct[:-3])
    line.until_quiet()
    assert MissingSlices(line.settings, line.database, line.spool, "archive").work(NOON) == 0


def test_an_archive_that_cannot_send_what_is_missing_is_asked_a_few_times_and_no_more(
    tmp_path: Path, database: Database, spool: Spool, archive: FakeArchive, ct: list[Path]
) -> None:
    line = make_line(tmp_path, database, spool, archive, fetch_missing=True)
    missing = MissingSlices(line.settings, database, spool, "archive")
    archive.behaviour.drops = lambda _uid: True
    arrive_all(spool, ct[:-3])
    line.until_quiet()
    for _ in range(10):
        missing.work(NOON)
    assert [asked for asked, _ in archive.asked].count("C-GET") == MissingSlices.TRIES
