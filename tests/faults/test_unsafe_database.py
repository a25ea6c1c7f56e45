"""A database that may lose what it committed is refused before the first row is written."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, event, text

from appliance.records import Database
from appliance.records.session import DatabaseUnsafe
from tests.support.appliance_box import ApplianceBox
from tests.support.fake_pacs import FakePacs
from tests.support.proof import Tally
from tests.support.real_parts import PostgreSql

UNSAFE = ("fsync", "full_page_writes", "synchronous_commit")


@pytest.fixture(params=UNSAFE)
def unsafe(request: pytest.FixtureRequest, postgresql: PostgreSql) -> Iterator[str]:
    """A parameter of the server that is off for the time of a test."""
    postgresql.tell(request.param, "off")
    yield request.param
    postgresql.tell(request.param, None)


@pytest.mark.fault("F10", "never lose")
def test_a_postgresql_that_may_lose_commits_is_refused_by_name_and_nothing_is_written(
    postgresql: PostgreSql, unsafe: str, tally: Tally
) -> None:
    database = Database(postgresql.new_database(f"unsafe {unsafe}"))
    for ask in (database.migrate, database.check):
        with pytest.raises(DatabaseUnsafe, match=f"{unsafe} is off.*set it to on"):
            ask()
        tally.count(held=_tables(database) == [])
    database.engine.dispose()


@pytest.mark.fault("F10", "never lose")
def test_what_is_off_for_our_database_alone_is_noticed_too(postgresql: PostgreSql, tally: Tally) -> None:
    url = postgresql.new_database("unsafe alone")
    admin = create_engine(Database(url).url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text('ALTER DATABASE "unsafe alone" SET synchronous_commit = off'))
    admin.dispose()
    database = Database(url)
    with pytest.raises(DatabaseUnsafe, match="synchronous_commit is off"):
        database.check()
    tally.count(held=True)
    database.engine.dispose()


@pytest.mark.fault("F10", "never lose")
def test_the_appliance_does_not_start_on_it_and_says_why(
    tmp_path: Path, postgresql: PostgreSql, tally: Tally, times: Callable[[int, int], int]
) -> None:
    box = ApplianceBox(tmp_path, FakePacs(), {"database": {"url": postgresql.new_database("unsafe start")}})
    postgresql.tell("fsync", "off")
    try:
        for command in (("up",), ("assemble",), ("migrate",), ("doctor",))[: times(2, 4)]:
            told = box.run(*command)
            tally.count(held=told.returncode == 1 and "fsync is off" in told.stdout + told.stderr)
    finally:
        postgresql.tell("fsync", None)
        box.database.engine.dispose()


@pytest.mark.fault("F10", "never lose")
@pytest.mark.parametrize("pragma", ["synchronous=NORMAL", "synchronous=OFF", "journal_mode=DELETE"])
def test_an_embedded_database_that_may_lose_commits_is_refused(database: Database, tally: Tally, pragma: str) -> None:
    """As a file system does that cannot share memory, on which SQLite falls back from WAL."""
    other = Database(str(database.url))

    @event.listens_for(other.engine, "connect")
    def _spoil(connection: Any, _entry: object) -> None:
        connection.execute(f"PRAGMA {pragma}")

    with pytest.raises(DatabaseUnsafe, match=pragma.partition("=")[0]):
        other.check()
    tally.count(held=True)
    other.engine.dispose()


def _tables(database: Database) -> list[str]:
    with database.engine.connect() as connection:
        found = connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))
        return [row[0] for row in found]
