"""The chain: every event is bound to all before it, in the transaction that it belongs to, and stays as it is."""

import hashlib
import threading
from datetime import timedelta, timezone

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from appliance.audit import trail
from appliance.audit.verifying import Fault
from appliance.records import Database, chain
from appliance.records.tables import AuditEvent, CaseState
from tests.support.rows import NOON, add_case, new_case
from tests.support.trails import fill, verified


def test_the_trail_of_a_new_box_is_whole(database: Database) -> None:
    assert verified(database).events == 0
    assert verified(database).broken is None


def test_events_are_numbered_without_a_gap_and_prove_to_be_whole(database: Database) -> None:
    fill(database, 120, new_case(database, CaseState.SENDING), at_once=7)
    with database.reading() as tx:
        assert list(tx.scalars(select(AuditEvent.id).order_by(AuditEvent.id))) == list(range(1, 121))
    assert (verified(database).events, verified(database).broken) == (120, None)


def test_an_event_that_was_undone_leaves_no_gap(database: Database) -> None:
    fill(database, 3)
    with pytest.raises(RuntimeError), database.transaction() as tx:
        trail.record(tx, "process_stopped", at=NOON, actor="worker", process="worker")
        raise RuntimeError
    fill(database, 2)
    assert (verified(database).events, verified(database).broken) == (5, None)


def test_an_event_that_breaks_a_rule_of_the_database_undoes_its_transaction(database: Database) -> None:
    with pytest.raises(IntegrityError), database.transaction() as tx:
        add_case(tx, CaseState.QUEUED)
        trail.record(tx, "process_stopped", at=NOON, actor="worker", case_id=4711, process="worker")
    assert verified(database).events == 0


def test_the_zone_in_which_an_instant_is_told_does_not_matter(database: Database) -> None:
    for hours in (-11, 0, 9):
        with database.transaction() as tx:
            at = NOON.astimezone(timezone(timedelta(hours=hours)))
            trail.record(tx, "process_stopped", at=at, actor="worker", process="worker")
    assert (verified(database).events, verified(database).broken) == (3, None)


def test_many_writers_at_once_make_one_chain(database: Database) -> None:
    writers = [threading.Thread(target=fill, args=(database, 30), kwargs={"at_once": 3}) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert (verified(database).events, verified(database).broken) == (120, None)


def test_within_a_savepoint_nothing_is_recorded(database: Database) -> None:
    with database.transaction() as tx, pytest.raises(RuntimeError, match="savepoint"), tx.begin_nested():
        trail.record(tx, "process_stopped", at=NOON, actor="worker", process="worker")


@pytest.mark.parametrize("table", ["audit_events", "audit_signed_heads"])
@pytest.mark.parametrize("change", ["UPDATE {0} SET hash = 'x'", "DELETE FROM {0}", "REPLACE INTO {0} VALUES {1}"])
def test_the_database_refuses_to_change_or_remove_what_was_recorded(
    database: Database, table: str, change: str
) -> None:
    fill(database, 2)
    same = {"audit_events": "(1, '', 1, '', '', '', '', '')", "audit_signed_heads": "(1, '', 1, '', 1, '', '', '')"}
    with database.engine.begin() as connection:
        head = "INSERT INTO audit_signed_heads VALUES (1, '2026-01-01', 1, 'x', 1, 'S', 'k', 's')"
        connection.execute(text(head))
    with pytest.raises(IntegrityError, match="append-only"), database.engine.begin() as connection:
        connection.execute(text(change.format(table, same[table])))


def test_a_hash_is_the_one_that_other_programs_compute() -> None:
    row = {"at": NOON, "case_id": None, "event": "process_stopped", "actor": "ä", "fields": {"process": "x", "f": 0.1}}
    bound = '["' + "0" * 64 + '",1,"2026-01-02T12:00:00.000000Z",null,"process_stopped","ä",'
    bound += '"{\\"process\\": \\"x\\", \\"f\\": 0.1}"]'
    assert chain.linked(1, chain.START, row)["hash"] == hashlib.sha256(bound.encode()).hexdigest()


def test_a_cut_at_the_end_shows_in_what_the_end_is_said_to_be(database: Database) -> None:
    fill(database, 10)
    with database.engine.begin() as connection:
        connection.execute(text("DROP TRIGGER audit_events_no_delete"))
        connection.execute(text("DELETE FROM audit_events WHERE id > 7"))
    broken = verified(database).broken
    assert broken is not None
    assert (broken.fault, broken.seq) == (Fault.CUT_OFF, 8)
    assert broken.words == "the trail is cut off: from event 8 on, at least 3 events that were there are gone"


@pytest.mark.parametrize("text", ["2026-01-02!12:00:00.000000", "2026-01-02 12:00", "20260102T120000", "noon", "", "1"])
def test_an_instant_that_is_written_otherwise_was_changed_even_if_it_means_the_same(
    database: Database, text: str
) -> None:
    fill(database, 1)
    with database.engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER audit_events_no_update")
        connection.exec_driver_sql("UPDATE audit_events SET at = ?", (text,))
    broken = verified(database).broken
    assert broken is not None
    assert (broken.fault, broken.seq) == (Fault.CHANGED, 1)
