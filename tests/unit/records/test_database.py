"""The database: what was committed is there, what was not never happened, and nobody waits without need."""

import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError, StatementError

from appliance.records import Database, chain
from appliance.records.session import DatabaseUnavailable, _alembic
from appliance.records.tables import Base, Case, CaseState
from tests.support.free_ports import free_port
from tests.support.rows import NOON, add_case, new_case, read_case


def test_the_migrations_make_exactly_the_tables_of_the_code(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_the_schema_can_be_taken_back_and_brought_forward_again(database: Database) -> None:
    with database.engine.begin() as connection:
        command.downgrade(_alembic(connection), "base")
    assert inspect(database.engine).get_table_names() == ["alembic_version"]
    database.migrate()
    assert set(inspect(database.engine).get_table_names()) == {*Base.metadata.tables, "alembic_version"}


def test_migrating_twice_changes_nothing(database: Database) -> None:
    case_id = new_case(database, CaseState.QUEUED)
    database.migrate()
    assert read_case(database, case_id).state is CaseState.QUEUED


def test_an_error_undoes_all_of_a_transaction(database: Database) -> None:
    with pytest.raises(RuntimeError), database.transaction() as tx:
        add_case(tx, CaseState.QUEUED)
        raise RuntimeError
    with database.reading() as tx:
        assert tx.query(Case).count() == 0


def test_what_is_changed_while_reading_is_never_kept(database: Database) -> None:
    case_id = new_case(database, CaseState.QUEUED)
    with database.reading() as tx:
        case = tx.get(Case, case_id)
        assert case is not None
        case.state = CaseState.REFUSED
    assert read_case(database, case_id).state is CaseState.QUEUED


def test_reading_does_not_hold_up_a_writer(database: Database) -> None:
    case_id = new_case(database, CaseState.QUEUED)
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout=0")  # a writer that would have to wait fails at once
    with database.reading() as tx:
        before = tx.get(Case, case_id)
        with database.transaction() as other:
            writing = other.get(Case, case_id)
            assert writing is not None
            writing.state = CaseState.SEGMENTING
        assert before is not None
        tx.refresh(before)
        assert before.state is CaseState.QUEUED, "a look is at one moment"
    assert read_case(database, case_id).state is CaseState.SEGMENTING


def test_a_writer_does_not_hold_up_reading(database: Database) -> None:
    case_id = new_case(database, CaseState.QUEUED)
    with database.transaction() as tx:
        case = tx.get(Case, case_id)
        assert case is not None
        case.state = CaseState.SEGMENTING
        tx.flush()
        assert read_case(database, case_id).state is CaseState.QUEUED


def test_two_writers_wait_for_one_another_and_no_change_is_lost(database: Database) -> None:
    case_id = new_case(database, CaseState.QUEUED)
    entered = threading.Barrier(4)

    def add_ten() -> None:
        entered.wait()
        for _ in range(10):
            with database.transaction() as tx:
                case = tx.get(Case, case_id)
                assert case is not None
                case.attempts += 1

    writers = [threading.Thread(target=add_ten) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert read_case(database, case_id).attempts == 40


def test_a_committed_row_is_on_the_disk_and_keys_are_checked(database: Database) -> None:
    with database.engine.connect() as connection:
        pragmas = {name: connection.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous")}
    assert pragmas == {"journal_mode": "wal", "synchronous": 2}
    with pytest.raises(IntegrityError), database.transaction() as tx:
        chain.append(tx, NOON, 4711, "case_opened", "nobody", {})


def test_times_come_back_in_utc_whatever_zone_they_had(database: Database) -> None:
    in_tokyo = NOON.astimezone(timezone(timedelta(hours=9)))
    case_id = new_case(database, CaseState.QUEUED, rung_at=in_tokyo)
    rung_at = read_case(database, case_id).rung_at
    assert rung_at == NOON
    assert rung_at is not None
    assert rung_at.utcoffset() == timedelta(0)


def test_a_time_without_a_zone_is_not_stored(database: Database) -> None:
    naive = datetime(2026, 1, 2, 12)  # noqa: DTZ001 - the mistake under test
    with pytest.raises(StatementError, match="without a zone"):
        new_case(database, CaseState.QUEUED, rung_at=naive)


def test_a_series_has_each_revision_once(database: Database) -> None:
    new_case(database, CaseState.REFUSED)
    new_case(database, CaseState.RECEIVING, revision=2)
    with pytest.raises(IntegrityError):
        new_case(database, CaseState.RECEIVING, revision=2)


def test_a_database_without_tables_says_what_to_do(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'new' / 'delineate.sqlite'}")
    with pytest.raises(DatabaseUnavailable, match=r"schema absent, expected .*; run `delineate migrate`"):
        database.check()
    database.migrate()
    assert database.check()
    database.engine.dispose()


def test_a_database_that_is_away_is_named_without_its_password() -> None:
    port = free_port()
    database = Database(f"postgresql://delineate:secret@127.0.0.1:{port}/x")

    def read() -> None:
        with database.reading() as tx:
            tx.query(Case).count()

    for ask in (database.check, database.migrate, read):
        with pytest.raises(DatabaseUnavailable) as unavailable:
            ask()
        assert f"127.0.0.1:{port}" in str(unavailable.value)
        assert "secret" not in str(unavailable.value)


def test_looking_at_the_schema_does_not_wait_for_a_writer(database: Database) -> None:
    with database.transaction() as tx:
        add_case(tx, CaseState.QUEUED)
        seen: list[str] = []
        looking = threading.Thread(target=lambda: seen.append(database.check()))
        looking.start()
        looking.join(timeout=5)
        assert seen
