"""`delineate audit`: the trail in words, as a file, and proven."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from appliance.audit.trail import trail_of_box
from appliance.cli import main
from appliance.records import Database
from appliance.records.tables import CaseState
from appliance.settings import Settings
from tests.support.config_folder import make_settings
from tests.support.rows import new_case
from tests.support.trails import fill

PAGE = Path(__file__).parents[3] / "docs" / "audit.md"
Say = Callable[..., str]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_settings(tmp_path)


@pytest.fixture
def rows(settings: Settings) -> Iterator[Database]:
    """The database of the box, migrated, with two cases of five events each."""
    database = Database(settings.database_url)
    database.migrate()
    for number in (4, 5):
        fill(database, 5, new_case(database, CaseState.SENDING, series_instance_uid=f"1.2.{number}"))
    yield database
    database.engine.dispose()


@pytest.fixture
def say(settings: Settings, rows: Database) -> Say:  # noqa: ARG001 - the rows have to be there
    def _say(*words: object, status: int = 0) -> str:
        result = CliRunner().invoke(main, ["--config", str(settings.folder), "audit", *map(str, words)])
        assert result.exit_code == status, result.output
        return result.output

    return _say


@pytest.fixture
def verifier(tmp_path: Path) -> Callable[[Path], subprocess.CompletedProcess[str]]:
    """The program that docs/audit.md gives to anyone."""
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    path = tmp_path / "verifier.py"
    path.write_text(program)
    return lambda file: subprocess.run(
        [sys.executable, str(path), str(file)], capture_output=True, text=True, check=False
    )


def test_a_whole_trail_is_said_to_be_whole_with_how_much_of_it_there_is(say: Say) -> None:
    assert "The trail is whole: 10 events, no signed head yet" in say("verify")
    assert "Signed: 10 events" in say("sign")
    assert "The trail is whole: 11 events, signed heads: 1" in say("verify")


def test_an_altered_trail_is_said_with_the_event_and_the_exit_status(say: Say, rows: Database) -> None:
    with rows.engine.begin() as connection:
        connection.execute(text("DROP TRIGGER audit_events_no_update"))
        connection.execute(text("UPDATE audit_events SET actor = 'nobody' WHERE id = 7"))
    assert "the trail was altered (changed): event 7 was changed. In order before that: 6 events." in say(
        "verify", status=1
    )


def test_heads_and_keys_that_were_kept_elsewhere_are_those_that_count(
    say: Say, settings: Settings, tmp_path: Path
) -> None:
    say("sign")
    kept = (settings.data_dir / "audit").rename(tmp_path / "kept")
    (key,) = (kept / "public-keys").iterdir()
    assert "signed heads: 1" in say("verify", "--heads", kept / "heads", "--public-key", key)
    assert "none of yours" in say("verify", status=1), "the head in the database names a key that this box lacks"


def test_anyone_can_verify_what_was_exported(
    say: Say, tmp_path: Path, verifier: Callable[[Path], subprocess.CompletedProcess[str]]
) -> None:
    file = tmp_path / "trail.jsonl"
    assert "10 events written" in say("export", file)
    assert verifier(file).stdout == "10 events are in order, up to event 10\n"
    lines = file.read_text().splitlines(keepends=True)
    for altered, words in (
        ([lines[0].replace('"case":1', '"case":2'), *lines[1:]], "event 1 was changed"),
        ([*lines[:4], lines[5], lines[4], *lines[6:]], "event 5 is out of order"),
        ([*lines[:4], lines[4].replace("worker-ä", "worker-a")], "event 5 was changed"),
    ):
        file.write_text("".join(altered))
        assert verifier(file).stderr.strip() == words


def test_a_part_of_the_trail_can_be_exported_and_verified(
    say: Say, tmp_path: Path, verifier: Callable[[Path], subprocess.CompletedProcess[str]]
) -> None:
    file = tmp_path / "part.jsonl"
    for count, options in (
        (5, ["--case", "2"]),
        (0, ["--to", "2026-01-02"]),
        (10, ["--from", "2026-01-02", "--to", "2026-01-03"]),
        (4, ["--from", "2026-01-02T12:00:03", "--to", "2026-01-03"]),
    ):
        assert f"{count} events written" in say("export", *options, file)
        assert verifier(file).stdout.startswith(f"{count} events are in order")
        say("verify")


def test_who_reads_the_trail_is_in_the_trail(say: Say, rows: Database, tmp_path: Path) -> None:
    say("show", 1)
    say("box")
    say("export", tmp_path / "trail.jsonl")
    with rows.reading() as tx:
        words = [entry.words for entry in trail_of_box(tx, 3)]
    assert [line.partition(" by ")[0].partition(" to ")[0] for line in words] == [
        "the trail of case 1 was shown",
        "the trail of the box was shown",
        "12 events of the trail were exported",
    ]


def test_a_case_that_is_not_there_is_answered_with_where_to_look(say: Say) -> None:
    assert "there is no case 99; `delineate case list` shows those there are" in say("show", 99, status=1)
