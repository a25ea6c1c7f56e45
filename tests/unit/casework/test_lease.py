"""A worker's hold on a case: one at a time, shown by progress, and without it nothing is written."""

import threading
from datetime import timedelta

import pytest

from appliance.casework.lease import Lease, LeaseLost, WorkerStopping, give_back
from appliance.clock import now_utc
from appliance.records import Database, queries
from appliance.records.tables import AuditEvent, CaseState
from tests.support.rows import new_case, read_case

LEASE_S = 60.0


def _lease(database: Database, case_id: int, worker: str = "worker-1", *, stopping: bool = False) -> Lease:
    return Lease(database, case_id, worker, LEASE_S, lambda: stopping)


def _taken(database: Database, worker: str = "worker-1") -> Lease:
    lease = _lease(database, new_case(database, CaseState.QUEUED), worker)
    assert lease.take()
    return lease


def _lose(database: Database, case_id: int) -> None:
    """What the reconciler does with a case whose worker fell silent."""
    with database.transaction() as tx:
        case = queries.case_by_id(tx, case_id)
        assert case is not None
        give_back(tx, case, "no progress for 60 s", attempts_allowed=3, at=now_utc(), actor="reconciler")


def test_the_first_taker_gets_the_case_and_the_second_gets_nothing(database: Database) -> None:
    case_id = new_case(database, CaseState.QUEUED)
    assert _lease(database, case_id, "worker-1").take()
    assert not _lease(database, case_id, "worker-2").take()
    case = read_case(database, case_id)
    assert (case.state, case.lease_owner, case.attempts) == (CaseState.SEGMENTING, "worker-1", 1)
    assert case.lease_until is not None
    assert case.lease_until - now_utc() > timedelta(seconds=LEASE_S - 5)


@pytest.mark.parametrize("state", [state for state in CaseState if state is not CaseState.QUEUED])
def test_a_late_or_doubled_doorbell_finds_nothing_to_do(database: Database, state: CaseState) -> None:
    case_id = new_case(database, state)
    assert not _lease(database, case_id).take()
    assert read_case(database, case_id).attempts == 0


def test_a_doorbell_for_a_case_that_is_not_there_is_harmless(database: Database) -> None:
    assert not _lease(database, 4711).take()


def test_of_many_takers_at_once_exactly_one_gets_the_case(database: Database) -> None:
    case_id = new_case(database, CaseState.QUEUED)
    together = threading.Barrier(8)
    taken: list[str] = []

    def take(worker: str) -> None:
        together.wait()
        if _lease(database, case_id, worker).take():
            taken.append(worker)

    workers = [threading.Thread(target=take, args=(f"worker-{number}",)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(taken) == 1
    assert read_case(database, case_id).lease_owner == taken[0]
    assert read_case(database, case_id).attempts == 1


def test_progress_is_shown_and_renews_the_lease(database: Database) -> None:
    lease = _taken(database)
    with database.transaction() as tx:
        case = queries.case_by_id(tx, lease.case_id)
        assert case is not None
        case.lease_until = now_utc() + timedelta(seconds=1)
    lease.progress("segment", 3, 10, lambda _: {"eta_s": 4.0})
    after = read_case(database, lease.case_id)
    assert after.progress == {"step": "segment", "done": 3, "total": 10, "eta_s": 4.0}
    assert after.lease_until is not None
    assert after.lease_until > now_utc() + timedelta(seconds=LEASE_S - 5)


def test_quick_progress_is_not_written_every_time_but_the_last_step_is(database: Database) -> None:
    lease = _taken(database)
    lease.progress("load", 1, 10)
    lease.progress("load", 2, 10)
    assert read_case(database, lease.case_id).progress["done"] == 1
    lease.progress("load", 10, 10)
    assert read_case(database, lease.case_id).progress["done"] == 10


def test_a_worker_that_lost_its_case_cannot_write(database: Database) -> None:
    lease = _taken(database)
    _lose(database, lease.case_id)
    with pytest.raises(LeaseLost):
        lease.progress("load", 1, 1)
    with pytest.raises(LeaseLost), lease.held() as (_, case, _):
        case.model = "stale"
    case = read_case(database, lease.case_id)
    assert (case.state, case.model, case.progress) == (CaseState.QUEUED, None, {})


def test_a_worker_cannot_write_into_what_another_has_taken_over(database: Database) -> None:
    slow = _taken(database, "worker-slow")
    _lose(database, slow.case_id)
    assert _lease(database, slow.case_id, "worker-quick").take()
    with pytest.raises(LeaseLost), slow.held() as (_, case, _):
        case.model = "stale"
    case = read_case(database, slow.case_id)
    assert (case.lease_owner, case.model, case.attempts) == ("worker-quick", None, 2)


def test_a_worker_that_took_its_case_a_second_time_cannot_write_by_its_first_lease(database: Database) -> None:
    """A process that was paused for minutes wakes up after another of the same name has gone on in its place."""
    paused = _taken(database, "worker-1")
    _lose(database, paused.case_id)
    again = _lease(database, paused.case_id, "worker-1")
    assert again.take()
    with pytest.raises(LeaseLost), paused.held() as (_, case, _):
        case.model = "stale"
    with pytest.raises(LeaseLost):
        paused.renew()
    again.renew()
    assert read_case(database, paused.case_id).model is None


def test_the_number_of_a_lease_grows_though_attempts_are_set_back(database: Database) -> None:
    first = _taken(database)
    _lose(database, first.case_id)
    with database.transaction() as tx:
        case = queries.case_by_id(tx, first.case_id)
        assert case is not None
        case.attempts = 0
    second = _lease(database, first.case_id)
    assert second.take()
    assert (first.number, second.number) == (1, 2)
    assert read_case(database, first.case_id).attempts == 1


def test_a_lease_can_be_renewed_while_a_long_step_shows_no_progress(database: Database) -> None:
    lease = _taken(database)
    with database.transaction() as tx:
        case = queries.case_by_id(tx, lease.case_id)
        assert case is not None
        case.lease_until = now_utc() + timedelta(seconds=1)
    lease.renew()
    until = read_case(database, lease.case_id).lease_until
    assert until is not None
    assert until > now_utc() + timedelta(seconds=LEASE_S - 5)


def test_a_case_that_is_parked_after_too_many_attempts_raises_an_alarm(database: Database) -> None:
    case_id = new_case(database, CaseState.SEGMENTING, attempts=3, lease_owner="worker-1")
    _lose(database, case_id)
    with database.reading() as tx:
        alarm = tx.query(AuditEvent).filter_by(event="alarm_raised").one()
    assert alarm.case_id == case_id
    assert "was parked after 3 attempts" in alarm.fields["sentence"]


def test_an_error_while_holding_the_case_undoes_what_was_written(database: Database) -> None:
    lease = _taken(database)
    with pytest.raises(RuntimeError), lease.held() as (_, case, _):
        case.model = "half"
        raise RuntimeError
    assert read_case(database, lease.case_id).model is None


def test_a_worker_that_is_asked_to_stop_hears_of_it_at_the_next_step(database: Database) -> None:
    case_id = new_case(database, CaseState.QUEUED)
    lease = _lease(database, case_id, stopping=True)
    assert lease.take()
    with pytest.raises(WorkerStopping):
        lease.progress("load", 1, 10)


def test_a_case_given_back_is_rung_for_at_once_and_remembers_why(database: Database) -> None:
    lease = _taken(database)
    with database.transaction() as tx:
        case = queries.case_by_id(tx, lease.case_id)
        assert case is not None
        case.rung_at = now_utc()
    _lose(database, lease.case_id)
    after = read_case(database, lease.case_id)
    assert (after.state, after.rung_at, after.lease_owner) == (CaseState.QUEUED, None, None)
    with database.reading() as tx:
        event = tx.query(AuditEvent).filter_by(event="work_lost").one()
    assert event.fields["worker"] == "worker-1"
    assert event.fields["sentence"] == "no progress for 60 s"
