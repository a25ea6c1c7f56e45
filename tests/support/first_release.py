"""A database as the first release left it, with cases that were delivered, are on their way, and were refused."""

from typing import Any

from alembic import command
from sqlalchemy import MetaData

from appliance.records import Database
from appliance.records.session import _alembic
from tests.support.rows import NOON


def fill_first_release(database: Database) -> None:
    """Write the rows of schema 0001: case 1 with two destinations, case 2 with one, case 3 without a result."""
    with database.engine.begin() as connection:
        command.upgrade(_alembic(connection), "0001")
        tables = MetaData()
        tables.reflect(connection)
        cases, deliveries, events = (tables.tables[name] for name in ("cases", "deliveries", "audit_events"))
        for number, state in ((1, "committed"), (2, "sending"), (3, "refused")):
            connection.execute(cases.insert().values(**_case(number, state, has_result=state != "refused")))
        for case_id, destination, state in ((1, "pacs", "committed"), (1, "tps", "accepted"), (2, "pacs", "pending")):
            delivery = {"case_id": case_id, "destination": destination, "state": state, "attempts": case_id}
            connection.execute(deliveries.insert().values(**delivery, next_try_at=NOON, commitment_uid=None))
        fields = {"destination": "pacs", "transaction_uid": "2.25.99"}
        event = {"at": NOON, "case_id": 1, "event": "commitment_requested", "actor": "deliverer", "fields": fields}
        connection.execute(events.insert().values(**event))


def _case(number: int, state: str, *, has_result: bool) -> dict[str, Any]:
    uid = f"2.25.{number}" if has_result else None
    return {
        "series_instance_uid": f"1.2.{number}",
        "revision": 1,
        "study_instance_uid": "1.2",
        "patient_id": f"P{number}",
        "accession_number": "",
        "description": "",
        "source_ae": "CT",
        "state": state,
        "slices": 10,
        "first_arrival_at": NOON,
        "last_arrival_at": NOON,
        "entered_state_at": NOON,
        "attempts": 0,
        "progress": {},
        "result_sop_instance_uid": uid,
        "result_digest": f"{number}" * 64 if has_result else None,
        "result_file": f"{uid}.dcm" if has_result else None,
    }


def assert_nothing_was_lost(database: Database) -> None:
    """Compare what this release reads with what `fill_first_release` wrote."""
    with database.engine.connect() as connection:
        tables = MetaData()
        tables.reflect(connection)
        results, deliveries, cases = (tables.tables[name] for name in ("results", "deliveries", "cases"))
        made = connection.execute(results.select().order_by(results.c.case_id)).mappings().all()
        told = ("case_id", "kind", "sop_instance_uid", "digest", "file")
        assert [tuple(row[name] for name in told) for row in made] == [
            (1, "rtstruct", "2.25.1", "1" * 64, "2.25.1.dcm"),
            (2, "rtstruct", "2.25.2", "2" * 64, "2.25.2.dcm"),
        ]
        of_case = {row["case_id"]: row["id"] for row in made}
        sent = connection.execute(deliveries.select().order_by(deliveries.c.id)).mappings().all()
        told = ("case_id", "result_id", "destination", "state", "attempts")
        assert [tuple(row[name] for name in told) for row in sent] == [
            (1, of_case[1], "pacs", "committed", 1),
            (1, of_case[1], "tps", "accepted", 1),
            (2, of_case[2], "pacs", "pending", 2),
        ]
        states = connection.execute(cases.select().order_by(cases.c.id)).mappings().all()
        assert [(row["patient_id"], row["state"]) for row in states] == [
            ("P1", "committed"),
            ("P2", "sending"),
            ("P3", "refused"),
        ]
