"""`delineate fetch`: what it says, and what it does not ask."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from appliance.cli import main
from appliance.records import Database
from appliance.spool import Spool
from tests.support.config_folder import make_settings
from tests.support.ct_files import all_slices, make_ct_series
from tests.support.fake_archive import FakeArchive

Run = Callable[..., str]


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[FakeArchive]:
    pelvis = make_ct_series(tmp_path / "pelvis", slices=3, rows=8, columns=8)
    head = all_slices(BodyPartExamined="HEAD")
    others = make_ct_series(tmp_path / "head", slices=3, rows=8, columns=8, series="head", mutate=head)
    with FakeArchive([*pelvis, *others]) as archive:
        yield archive


@pytest.fixture
def run(tmp_path: Path, archive: FakeArchive) -> Run:
    settings = make_settings(
        tmp_path, {"intake": {"free_space_reserve_mb": 1}}, peers={"pacs": archive.peer(), "archive": archive.peer()}
    )
    Database(settings.database_url).migrate()

    def _run(*words: str, status: int = 0) -> str:
        result = CliRunner().invoke(main, ["--config", str(settings.folder), "fetch", *words])
        assert result.exit_code == status, result.output
        return result.output

    return _run


def test_a_dry_run_shows_what_would_be_fetched_and_fetches_nothing(run: Run, archive: FakeArchive) -> None:
    said = run("archive", "--patient", "TEST-0001", "--dry-run")
    assert "(CT PELVIS RT PLANNING / Pelvis 3.0), 3 objects: fetch, all of it" in said
    assert "no protocol takes it, bones does not take body_part=HEAD" in said
    assert "1 of 2 series would be fetched." in said
    assert archive.sent == []


def test_what_is_fetched_lies_in_the_spool(run: Run, tmp_path: Path) -> None:
    assert "3 objects fetched" in run("archive", "--accession", "ACC1")
    assert len(Spool(tmp_path / "var" / "spool").arrivals()) == 3


def test_all_takes_what_no_protocol_takes(run: Run, archive: FakeArchive) -> None:
    run("archive", "--patient", "TEST-0001", "--all")
    assert len(archive.sent) == 6


def test_a_series_that_did_not_come_whole_ends_with_an_error(run: Run, archive: FakeArchive) -> None:
    first = next(iter(archive.files))
    archive.behaviour.fails = lambda uid: uid == first
    said = run("archive", "--patient", "TEST-0001", status=1)
    assert "2 objects fetched; 1 objects could not be sent" in said
    assert "1 of 1 series did not come whole; fetch again" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "say what to fetch: --patient, --accession, --study or --series"),
        (("--patient", "*"), "--patient takes one whole value"),
        (("--study", "1.2.x"), "--study takes a UID"),
        (("--series", "1..2"), "--series takes a UID"),
    ],
)
def test_what_would_ask_for_too_much_is_not_asked(
    run: Run, archive: FakeArchive, words: tuple[str, ...], sentence: str
) -> None:
    assert sentence in run("archive", *words, status=1)
    assert archive.asked == []


def test_nothing_found_is_said(run: Run) -> None:
    assert "archive has no CT series that matches." in run("archive", "--patient", "NOBODY")
