"""Tampering with the trail: whoever has all rights on the database and changes one event of many is found out."""

import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from appliance.audit.verifying import Fault
from appliance.records import Database
from tests.support.first_release import fill_first_release
from tests.support.proof import Tally
from tests.support.real_parts import PostgreSql
from tests.support.tampering import ATTACKS, open_as_attacker
from tests.support.trails import fill, verified

Times = Callable[[int, int], int]
WRITER = """
import sys
from appliance.records import Database
from tests.support.trails import fill
fill(Database(sys.argv[1]), int(sys.argv[2]), at_once=3)
"""


@pytest.mark.fault("Tampering with audit", "never silent")
def test_one_event_changed_removed_added_or_moved_among_thousands_is_found_with_its_number(
    migrated_file: Path, tmp_path: Path, tally: Tally, times: Times
) -> None:
    events = times(1_000, 10_000)
    whole = Path(shutil.copy(migrated_file, tmp_path / "whole.sqlite"))
    database = Database(f"sqlite:///{whole}")
    fill(database, events)
    assert verified(database).broken is None
    database.engine.dispose()
    dice = random.Random(5)
    for fault, attack in ATTACKS.items():
        found = 0
        for _ in range(times(25, 100)):
            seq = dice.randrange(2, events)
            altered = Path(shutil.copy(whole, tmp_path / "altered.sqlite"))
            connection = open_as_attacker(altered)
            attack(connection, seq, dice)
            connection.close()
            broken = _verify_file(altered)
            right = broken == (fault, seq)
            tally.count(held=right)
            found += right
            assert right, f"{fault} at {seq} was taken for {broken}"
        tally.figures[f"{fault}, found with its number"] = f"{found} of {times(25, 100)}, in {events} events"


def _verify_file(path: Path) -> tuple[Fault, int] | None:
    database = Database(f"sqlite:///{path}")
    broken = verified(database).broken
    database.engine.dispose()
    return None if broken is None else (broken.fault, broken.seq)


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSql]:
    server = PostgreSql()
    yield server
    server.close()


@pytest.fixture
def on_postgresql(postgresql: PostgreSql, request: pytest.FixtureRequest) -> Iterator[Database]:
    database = Database(postgresql.new_database(f"trail_{abs(hash(request.node.name))}"))
    yield database
    database.engine.dispose()


@pytest.mark.fault("Tampering with audit", "never lose")
def test_four_processes_write_one_chain_in_postgresql_and_none_waits_for_ever(
    on_postgresql: Database, tally: Tally, times: Times
) -> None:
    on_postgresql.migrate()
    each = times(150, 3_000)
    url = on_postgresql.url.render_as_string(hide_password=False)
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, url, str(each)]) for _ in range(4)]
    assert [writer.wait(timeout=170) for writer in writers] == [0] * 4
    verdict = verified(on_postgresql)
    assert verdict.broken is None
    tally.counted(4 * each, 4 * each - verdict.events)


@pytest.mark.fault("Tampering with audit", "never silent")
@pytest.mark.parametrize("table", ["audit_events", "audit_signed_heads"])
def test_postgresql_refuses_to_change_remove_or_empty_the_trail(
    on_postgresql: Database, tally: Tally, table: str
) -> None:
    on_postgresql.migrate()
    fill(on_postgresql, 5)
    for change in ("UPDATE {} SET hash = 'x'", "DELETE FROM {}", "TRUNCATE {}"):
        with pytest.raises(DBAPIError, match="append-only"), on_postgresql.engine.begin() as connection:
            connection.execute(text(change.format(table)))
        tally.count(held=verified(on_postgresql).events == 5)


@pytest.mark.fault("Tampering with audit", "never lose")
def test_events_of_the_first_release_are_bound_when_postgresql_is_updated(
    on_postgresql: Database, tally: Tally
) -> None:
    fill_first_release(on_postgresql)
    on_postgresql.migrate()
    fill(on_postgresql, 5)
    tally.count(held=verified(on_postgresql).broken is None and verified(on_postgresql).events == 6)
