"""The same code on a real PostgreSQL and a real Redis or Valkey, given by URL."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select

from appliance.casework.asking import progress_of_parts
from appliance.casework.lease import Lease
from appliance.casework.part_lease import PartLease
from appliance.casework.retention import Retention
from appliance.casework.stocktaking import take_stock
from appliance.casework.workbench import Workbench
from appliance.delivery.reconciling import Reconciler
from appliance.intake.arrivals import index_arrivals
from appliance.records import Database, queries
from appliance.records.account import account
from appliance.records.tables import Base, Case, CaseState, Part, PartState
from appliance.spool import Spool
from tests.support.appliance_box import ApplianceBox
from tests.support.arriving import arrive_all
from tests.support.config_folder import make_settings
from tests.support.ct_files import make_ct_series, set_raw
from tests.support.fake_pacs import FakePacs, status
from tests.support.first_release import assert_nothing_was_lost, fill_first_release
from tests.support.outbox_site import OutboxSite, at
from tests.support.patients import make_patient, make_slow_patient
from tests.support.reading import READING
from tests.support.real_parts import PostgreSql, redis_server, valkey_server
from tests.support.rows import NOON, new_case
from tests.support.waiting import wait_until


class Broker(Protocol):
    """Starts a broker in a folder."""

    def __call__(self, folder: Path) -> AbstractContextManager[str]: ...


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSql]:
    server = PostgreSql()
    yield server
    server.close()


@pytest.fixture
def pg_database(postgresql: PostgreSql, request: pytest.FixtureRequest) -> Iterator[Database]:
    """An empty database at this release's schema, on PostgreSQL."""
    database = Database(postgresql.new_database(request.node.name[:60]))
    database.migrate()
    yield database
    database.engine.dispose()


def test_the_migrations_make_exactly_the_tables_of_the_code(pg_database: Database) -> None:
    with pg_database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_a_box_of_the_first_release_that_is_updated_has_lost_nothing(postgresql: PostgreSql) -> None:
    database = Database(postgresql.new_database("first release"))
    fill_first_release(database)
    database.migrate()
    assert_nothing_was_lost(database)
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    database.engine.dispose()


def test_of_many_takers_at_once_exactly_one_gets_the_case(pg_database: Database) -> None:
    case_id = new_case(pg_database, CaseState.QUEUED)
    together = threading.Barrier(4)
    taken: list[str] = []

    def take(worker: str) -> None:
        together.wait()
        if Lease(pg_database, case_id, worker, 60.0, lambda: False).take():
            taken.append(worker)

    workers = [threading.Thread(target=take, args=(f"worker-{number}",)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(taken) == 1


def test_texts_that_this_database_does_not_take_do_not_hold_up_the_spool(
    tmp_path: Path, pg_database: Database, spool: Spool
) -> None:
    def mutate(_index: int, dataset: Any) -> None:
        for keyword in ("PatientID", "AccessionNumber", "StudyDescription", "SeriesDescription"):
            set_raw(dataset, keyword, b"A\0B")

    arrive_all(spool, make_ct_series(tmp_path / "ct", slices=3, mutate=mutate))
    index_arrivals(pg_database, spool, NOON, READING)
    assert spool.arrivals() == []
    with pg_database.reading() as tx:
        assert tx.scalars(select(Case)).one().patient_id == "AB"


def test_results_are_sent_proved_compared_accounted_for_and_removed_on_this_database_too(
    tmp_path: Path, pg_database: Database, spool: Spool
) -> None:
    with FakePacs() as pacs:
        site = OutboxSite.at(tmp_path, pg_database, spool, {"pacs": pacs.peer(query=True)}, network_timeout_s=10.0)
        pacs.play([status(0xA700)])
        cases = [site.result(number, patient="P1") for number in (1, 2)]
        site.sweep(0, 5, 6, 7, 8)
        assert {site.case(case_id).state for case_id in cases} == {CaseState.COMMITTED}
        assert list(pacs.stored) == ["2.25.1", "2.25.2"]
        del pacs.stored["2.25.2"]
        assert len(Reconciler(site.settings, pg_database, spool).run(at(60)).sent_again) == 1
        site.sweep(61, 63)
        assert site.case(cases[1]).state is CaseState.COMMITTED
        with pg_database.reading() as tx:
            assert [sentence for sentence in account(tx).residue if "has no slices" not in sentence] == []
        assert Retention(site.settings, pg_database, spool).run(at(400 * 86_400.0)).results == 2
        assert take_stock(pg_database, spool, at(0)).missing == ()


@pytest.mark.parametrize("broker", [redis_server, valkey_server], ids=["redis", "valkey"])
def test_a_case_goes_all_the_way_on_real_parts(tmp_path: Path, postgresql: PostgreSql, broker: Broker) -> None:
    (tmp_path / "broker").mkdir()
    with broker(tmp_path / "broker") as broker_url, FakePacs() as pacs:
        urls = {"database": {"url": postgresql.new_database(broker.__name__)}, "broker": {"url": broker_url}}
        with ApplianceBox(tmp_path / "box", pacs, urls) as box:
            paths = make_patient(tmp_path / "ct", broker.__name__)
            box.send(paths)
            case = box.wait_for_case(paths[0], CaseState.COMMITTED)
            assert pacs.received == [case.result_sop_instance_uid]
            assert not (box.settings.data_dir / "delineate.sqlite").exists()
            assert not (box.settings.data_dir / "broker").exists()
            if broker is redis_server:
                _assert_that_receiving_goes_on_without_the_database(box, postgresql, tmp_path)


def _assert_that_receiving_goes_on_without_the_database(
    box: ApplianceBox, postgresql: PostgreSql, folder: Path
) -> None:
    paths = make_patient(folder / "meanwhile", "meanwhile")
    listener = box.role("listen").pid
    postgresql.stop()
    try:
        box.send(paths)
        wait_until(lambda: "database_unavailable" in box.log.read_text(), 15, "the supervisor to notice")
        assert box.process.poll() is None
        assert box.is_ready()
        assert len(box.spool.arrivals()) == len(paths)
    finally:
        postgresql.start()
    case = box.wait_for_case(paths[0], CaseState.COMMITTED)
    assert box.pacs.received.count(case.result_sop_instance_uid or "") == 1
    assert box.role("listen").pid == listener, "it never stopped"


def test_of_many_takers_at_once_exactly_one_gets_a_part_and_events_beside_it_hold_nobody_up(
    tmp_path: Path, pg_database: Database, spool: Spool
) -> None:
    case_id = new_case(pg_database, CaseState.QUEUED)
    lease = Lease(pg_database, case_id, "worker-lead", 60.0, lambda: False)
    assert lease.take()
    with pg_database.transaction() as tx:
        tx.add(Part(case_id=case_id, model="dense", state=PartState.WAITING, attempts=0, progress={}, file="a.npz"))
    settings = make_settings(tmp_path)
    together = threading.Barrier(5)
    taken: list[str] = []

    def take(worker: str) -> None:
        part = PartLease(Workbench(settings, pg_database, spool, worker), case_id, "dense")
        together.wait()
        if part.take():
            taken.append(worker)
            part.progress({"done": 1, "total": 9})

    def lead() -> None:
        together.wait()
        for _ in range(20):
            lease.progress("segment", 1, 1, lambda tx: progress_of_parts(queries.parts_of(tx, case_id)))

    threads = [threading.Thread(target=take, args=(f"worker-{number}",)) for number in range(4)]
    threads.append(threading.Thread(target=lead))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1
    with pg_database.reading() as tx:
        (part,) = queries.parts_of(tx, case_id)
    assert (part.lease_owner, part.attempts, part.progress["done"]) == (taken[0], 1, 1)


def test_two_workers_share_a_case_on_real_parts(tmp_path: Path, postgresql: PostgreSql) -> None:
    (tmp_path / "broker").mkdir()
    with valkey_server(tmp_path / "broker") as broker_url, FakePacs() as pacs:
        tables: dict[str, Any] = {
            "database": {"url": postgresql.new_database("shared")},
            "broker": {"url": broker_url},
            "worker": {"devices": ["cpu", "cpu"]},
        }
        with ApplianceBox(tmp_path / "box", pacs, tables) as box:
            paths = make_slow_patient(tmp_path / "ct", "shared", "CHEST", (20, 96, 96))
            box.send(paths)
            case = box.wait_for_case(paths[0], CaseState.COMMITTED)
            asked = [entry.actor for entry in box.trail(case) if entry.event == "segmented"]
            assert len(asked) == len(set(asked)) == 2
            assert pacs.received == [case.result_sop_instance_uid]
