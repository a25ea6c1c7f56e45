"""A box that was updated has lost nothing that it knew."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import MetaData, select
from sqlalchemy.exc import IntegrityError

from appliance.audit.trail import trail_of
from appliance.records import Database, queries
from appliance.records.session import _alembic
from appliance.records.tables import AuditEvent, Case, DeliveryState, ResultKind
from tests.support.first_release import assert_nothing_was_lost, fill_first_release
from tests.support.rows import NOON, add_result, new_delivery
from tests.support.trails import fill, verified

HOUR = timedelta(hours=1)


@pytest.fixture
def updated(tmp_path: Path) -> Iterator[Database]:
    """A database of the first release, brought to this one's schema."""
    database = Database(f"sqlite:///{tmp_path / 'old.sqlite'}")
    fill_first_release(database)
    database.migrate()
    yield database
    database.engine.dispose()


def test_results_and_deliveries_of_the_first_release_are_kept(updated: Database) -> None:
    assert_nothing_was_lost(updated)


def test_what_was_on_its_way_is_still_due(updated: Database) -> None:
    with updated.reading() as tx:
        (destination,) = queries.destinations_due(tx, queries.Due(NOON, HOUR, 3))
        due = queries.next_delivery(tx, destination, DeliveryState.PENDING, queries.Due(NOON, HOUR, 3))
        assert due is not None
        assert (due.case_id, due.destination, due.result.file) == (2, "pacs", "2.25.2.dcm")


def test_an_answer_to_what_the_first_release_asked_still_finds_its_delivery(updated: Database) -> None:
    with updated.transaction() as tx:
        delivery = queries.delivery_by_commitment(tx, "2.25.99")
        assert delivery is not None
        assert (delivery.case_id, delivery.destination, delivery.result.kind) == (1, "pacs", ResultKind.RTSTRUCT)


def test_events_of_the_first_release_speak_of_the_structure_set(updated: Database) -> None:
    with updated.reading() as tx:
        words = [entry.words for entry in trail_of(tx, 1)]
    assert words == ["pacs was asked for storage commitment to the structure set"]


def test_a_destination_takes_each_result_of_a_case_once(updated: Database) -> None:
    with updated.transaction() as tx:
        add_result(tx, tx.get_one(Case, 1), "2.25.50", ResultKind.SEG)
    new_delivery(updated, 1, "pacs", ResultKind.SEG)
    with pytest.raises(IntegrityError):
        new_delivery(updated, 1, "pacs", ResultKind.SEG)


def test_a_case_has_each_kind_of_result_once(updated: Database) -> None:
    with pytest.raises(IntegrityError), updated.transaction() as tx:
        add_result(tx, tx.get_one(Case, 1), "2.25.50", ResultKind.RTSTRUCT)


def test_taking_the_schema_back_keeps_the_structure_sets_and_their_deliveries(updated: Database) -> None:
    with updated.transaction() as tx:
        add_result(tx, tx.get_one(Case, 2), "2.25.50", ResultKind.SEG)
    new_delivery(updated, 2, "pacs", ResultKind.SEG, state=DeliveryState.ACCEPTED)
    with updated.engine.begin() as connection:
        command.downgrade(_alembic(connection), "0001")
        tables = MetaData()
        tables.reflect(connection)
        cases = connection.execute(tables.tables["cases"].select()).mappings().all()
        deliveries = connection.execute(tables.tables["deliveries"].select()).mappings().all()
    assert [row["result_file"] for row in cases] == ["2.25.1.dcm", "2.25.2.dcm", None]
    assert [(row["case_id"], row["destination"]) for row in deliveries] == [(1, "pacs"), (1, "tps"), (2, "pacs")]
    updated.migrate()
    assert_nothing_was_lost(updated)


def test_a_long_trail_of_the_first_release_is_bound_in_its_order_with_numbers_without_a_gap(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'old.sqlite'}")
    with database.engine.begin() as connection:
        command.upgrade(_alembic(connection), "0001")
        tables = MetaData()
        tables.reflect(connection)
        rows = [
            {"id": 3 * number + 5, "at": NOON, "event": "slices_received", "actor": "a", "fields": {"n": number / 7}}
            for number in range(2_500)
        ]
        connection.execute(tables.tables["audit_events"].insert(), rows)
    database.migrate()
    assert (verified(database).events, verified(database).broken) == (2_500, None)
    with database.reading() as tx:
        told = [(row.id, row.fields["n"]) for row in tx.scalars(select(AuditEvent).order_by(AuditEvent.id))]
    assert told == [(number + 1, number / 7) for number in range(2_500)]
    with database.engine.begin() as connection:
        command.downgrade(_alembic(connection), "0003")
    database.migrate()
    assert (verified(database).events, verified(database).broken) == (2_500, None)
    database.engine.dispose()


def test_the_trail_goes_on_where_the_first_release_left_it(updated: Database) -> None:
    fill(updated, 3)
    assert (verified(updated).events, verified(updated).broken) == (4, None)
