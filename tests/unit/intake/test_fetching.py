"""Fetching from an archive: what a protocol would take and is not here yet, and nothing twice."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import JPEGLSLossless

from appliance.audit.trail import trail_of_box
from appliance.errors import SettingsError
from appliance.intake import retrieving
from appliance.intake.arrivals import index_arrivals
from appliance.intake.calling import NoAnswer
from appliance.intake.fetching import Fetcher, Question, Verdict
from appliance.intake.finding import find_images
from appliance.records import Database, queries
from appliance.records.tables import Case, Instance, InstanceState
from appliance.settings import Settings
from appliance.spool import Spool
from tests.support.arriving import arrive_all, data_set_bytes
from tests.support.config_folder import make_settings
from tests.support.ct_files import all_slices, compress, make_ct_series
from tests.support.fake_archive import FakeArchive
from tests.support.reading import READING
from tests.support.rows import NOON

PATIENT = {"PatientID": "TEST-0001"}
SLICES = 6


@dataclass
class Shelf:
    """An archive with a pelvis and a head of one patient, and an appliance that may fetch."""

    archive: FakeArchive
    settings: Settings
    database: Database
    spool: Spool
    pelvis: list[Path]

    def fetcher(self, name: str = "archive") -> Fetcher:
        return Fetcher(self.settings, self.database, self.spool, name, "operator:jane")

    def plan(self, keys: dict[str, str] = PATIENT, **how: Any) -> dict[str, Any]:
        """What would be done, by the last word of the study's and the series' description."""
        question = Question(keys, **{"protocols": tuple(self.settings.protocols.values()), **how})
        return {one.series.body_part: one for one in self.fetcher().plan(question)}

    def index(self) -> None:
        while index_arrivals(self.database, self.spool, NOON, READING):
            pass

    @property
    def instances(self) -> list[Instance]:
        with self.database.reading() as tx:
            return list(tx.query(Instance).order_by(Instance.id))


@pytest.fixture
def shelf(tmp_path: Path, database: Database, spool: Spool) -> Iterator[Shelf]:
    pelvis = make_ct_series(tmp_path / "pelvis", slices=SLICES, rows=8, columns=8)
    head = make_ct_series(
        tmp_path / "head", slices=4, rows=8, columns=8, series="head", mutate=all_slices(BodyPartExamined="HEAD")
    )
    with FakeArchive([*pelvis, *head]) as archive:
        settings = make_settings(
            tmp_path,
            {"query": {"timeout_s": 3.0, "retrieve_timeout_s": 3.0}, "intake": {"free_space_reserve_mb": 1}},
            peers={"pacs": archive.peer(query=False), "archive": archive.peer()},
        )
        yield Shelf(archive, settings, database, spool, pelvis)


def test_what_a_protocol_takes_is_fetched_byte_for_byte_as_if_it_had_been_sent(shelf: Shelf) -> None:
    choice = shelf.plan()["PELVIS"]
    seen: list[int] = []
    fetched = shelf.fetcher().fetch(choice, seen.append)
    assert (fetched.came, fetched.kept, fetched.problem) == (SLICES, SLICES, "")
    assert seen == [1, 2, 3, 4, 5, 6]
    shelf.index()
    with shelf.database.reading() as tx:
        case = tx.query(Case).one()
    assert (case.slices, case.source_ae) == (SLICES, "ARCHIVE")
    kept = {data_set_bytes(shelf.spool.instance_path(one.digest)) for one in shelf.instances}
    assert kept == {data_set_bytes(path) for path in shelf.pelvis}


def test_what_no_protocol_takes_is_left_and_says_why(shelf: Shelf) -> None:
    choice = shelf.plan()["HEAD"]
    assert (choice.verdict, choice.words) == (Verdict.NO_PROTOCOL, "bones does not take body_part=HEAD")
    assert shelf.plan(protocols=None)["HEAD"].verdict is Verdict.FETCH, "but for whoever wants all"


def test_nothing_is_fetched_twice(shelf: Shelf) -> None:
    arrive_all(shelf.spool, shelf.pelvis)
    shelf.index()
    choice = shelf.plan()["PELVIS"]
    assert (choice.verdict, choice.words) == (Verdict.HERE, f"{SLICES} objects of it came before")


@pytest.mark.parametrize("tells_count", [True, False])
def test_of_a_series_that_is_here_in_part_the_rest_is_fetched(shelf: Shelf, tells_count: bool) -> None:
    shelf.archive.behaviour.tells_count = tells_count
    arrive_all(shelf.spool, shelf.pelvis[:4])
    shelf.index()
    choice = shelf.plan()["PELVIS"]
    assert shelf.fetcher().fetch(choice).came == 2
    assert set(shelf.archive.sent) == {str(dcmread(path).SOPInstanceUID) for path in shelf.pelvis[4:]}
    shelf.index()
    assert shelf.plan()["PELVIS"].verdict is Verdict.HERE


def test_a_long_list_of_missing_images_is_asked_for_in_parts(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieving, "UIDS_AT_ONCE", 2)
    arrive_all(shelf.spool, shelf.pelvis[:1])
    shelf.index()
    assert shelf.fetcher().fetch(shelf.plan()["PELVIS"]).came == SLICES - 1
    assert [asked for asked in shelf.archive.asked if asked[0] == "C-GET"] == [("C-GET", "IMAGE")] * 3


def test_compressed_images_come_as_they_are(shelf: Shelf) -> None:
    for path in shelf.pelvis:
        compress(path, JPEGLSLossless)
    assert shelf.fetcher().fetch(shelf.plan()["PELVIS"]).came == SLICES
    shelf.index()
    assert {one.transfer_syntax_uid for one in shelf.instances} == {JPEGLSLossless}


def test_an_archive_that_ignores_the_patient_gives_no_other_patients_study(shelf: Shelf, tmp_path: Path) -> None:
    other = all_slices(PatientID="SOMEBODY-ELSE", StudyInstanceUID="1.2.3.4")
    shelf.archive.hold(make_ct_series(tmp_path / "other", slices=3, series="other", mutate=other))
    shelf.archive.behaviour.ignores = {"PatientID"}
    plan = shelf.fetcher().plan(Question(PATIENT, protocols=None))
    assert {choice.series.study_instance_uid for choice in plan} == {str(dcmread(shelf.pelvis[0]).StudyInstanceUID)}


def test_a_series_is_found_by_its_own_uid(shelf: Shelf) -> None:
    uid = str(dcmread(shelf.pelvis[0]).SeriesInstanceUID)
    assert list(shelf.plan({}, series_uid=uid)) == ["PELVIS"]


def test_images_that_the_archive_could_not_send_are_told_and_asked_for_the_next_time(shelf: Shelf) -> None:
    lost = str(dcmread(shelf.pelvis[2]).SOPInstanceUID)
    shelf.archive.behaviour.fails = lambda uid: uid == lost
    fetched = shelf.fetcher().fetch(shelf.plan()["PELVIS"])
    assert (fetched.came, fetched.problem) == (SLICES - 1, "1 objects could not be sent")
    shelf.index()
    assert shelf.plan()["PELVIS"].wanted.sop_instance_uids == (lost,)


def test_a_full_spool_takes_nothing_and_says_so(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    choice = shelf.plan()["PELVIS"]
    monkeypatch.setattr(Spool, "free_mb", lambda _spool: 0)
    with pytest.raises(NoAnswer, match="less free space than its reserve"):
        shelf.fetcher().fetch(choice)
    assert shelf.spool.arrivals() == []


def test_what_was_asked_and_fetched_is_in_the_trail(shelf: Shelf) -> None:
    shelf.fetcher().fetch(shelf.plan()["PELVIS"])
    shelf.archive.behaviour.find_status = 0xA900
    with pytest.raises(NoAnswer, match="does not understand the question"):
        shelf.plan()
    with shelf.database.reading() as tx:
        words = [f"{entry.actor}: {entry.words}" for entry in trail_of_box(tx, 10)]
    assert words == [
        "operator:jane: archive was asked what it has: 2 series, 1 of them wanted",
        f"operator:jane: {SLICES} objects of a series were fetched from archive by C-GET",
        "operator:jane: fetching from archive failed: C-FIND was answered 0xA900 (it does not understand the question)",
    ]


@pytest.mark.parametrize(("name", "words"), [("nobody", "is not in peers.toml"), ("pacs", "give it `query = true`")])
def test_who_is_not_to_be_asked_is_not_asked(shelf: Shelf, name: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        shelf.fetcher(name)


def test_an_archive_that_is_away_is_said_so(shelf: Shelf) -> None:
    gone = shelf.settings.peers["archive"].model_copy(update={"port": 1})
    with pytest.raises(NoAnswer, match=r"nobody answers at 127\.0\.0\.1:1 as ARCHIVE"):
        find_images(shelf.settings, gone, "1.2", "1.2.3")


def test_damaged_objects_do_not_count_as_here(shelf: Shelf, database: Database) -> None:
    arrive_all(shelf.spool, shelf.pelvis)
    shelf.index()
    uid = str(dcmread(shelf.pelvis[0]).SeriesInstanceUID)
    with database.transaction() as tx:
        tx.query(Instance).limit(1).one().state = InstanceState.QUARANTINED
    with database.reading() as tx:
        assert len(queries.sop_instance_uids_here(tx, uid)) == SLICES - 1
