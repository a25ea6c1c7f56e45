"""The reconciler makes good what was lost: doorbells, and workers. Time is handed to it."""

from datetime import timedelta
from pathlib import Path

import pytest

from appliance.casework.reconciler import RING_AGAIN_AFTER, Reconciler
from appliance.records import Database
from appliance.records.tables import AuditEvent, CaseState
from tests.support.config_folder import make_settings
from tests.support.rows import NOON, new_case, read_case

MOMENT = timedelta(milliseconds=1)


class Bell:
    """A doorbell that remembers for whom it rang; it can be out of order."""

    def __init__(self) -> None:
        self.rung: list[int] = []
        self.works = True

    def ring(self, case_id: int) -> bool:
        if self.works:
            self.rung.append(case_id)
        return self.works


@pytest.fixture
def bell() -> Bell:
    return Bell()


@pytest.fixture
def reconciler(tmp_path: Path, database: Database, bell: Bell) -> Reconciler:
    settings = make_settings(tmp_path, {"worker": {"lease_s": 60.0, "attempts": 3}})
    return Reconciler(settings, database, bell.ring)


def test_a_queued_case_is_rung_for_once(database: Database, bell: Bell, reconciler: Reconciler) -> None:
    case_id = new_case(database, CaseState.QUEUED)
    reconciler.sweep(NOON)
    reconciler.sweep(NOON + MOMENT)
    assert bell.rung == [case_id]
    assert read_case(database, case_id).rung_at == NOON


@pytest.mark.parametrize("state", [state for state in CaseState if state is not CaseState.QUEUED])
def test_nobody_is_called_to_a_case_that_does_not_wait(
    database: Database, bell: Bell, reconciler: Reconciler, state: CaseState
) -> None:
    new_case(database, state)
    reconciler.sweep(NOON)
    assert bell.rung == []


def test_a_lost_doorbell_is_rung_again_after_thirty_seconds(
    database: Database, bell: Bell, reconciler: Reconciler
) -> None:
    assert timedelta(seconds=30) == RING_AGAIN_AFTER
    case_id = new_case(database, CaseState.QUEUED, rung_at=NOON)
    reconciler.sweep(NOON + RING_AGAIN_AFTER - MOMENT)
    assert bell.rung == []
    reconciler.sweep(NOON + RING_AGAIN_AFTER)
    assert bell.rung == [case_id]
    reconciler.sweep(NOON + RING_AGAIN_AFTER + MOMENT)
    assert bell.rung == [case_id]


def test_the_oldest_case_is_rung_for_first(database: Database, bell: Bell, reconciler: Reconciler) -> None:
    ids = [new_case(database, CaseState.QUEUED, series_instance_uid=f"1.2.{n}") for n in range(3)]
    reconciler.sweep(NOON)
    assert bell.rung == ids


def test_a_broker_that_is_away_costs_nothing_and_is_tried_again(
    database: Database, bell: Bell, reconciler: Reconciler
) -> None:
    case_id = new_case(database, CaseState.QUEUED)
    bell.works = False
    reconciler.sweep(NOON)
    assert read_case(database, case_id).rung_at is None
    bell.works = True
    reconciler.sweep(NOON + MOMENT)
    assert bell.rung == [case_id]


def test_an_expired_lease_goes_back_and_is_rung_for_in_the_same_round(
    database: Database, bell: Bell, reconciler: Reconciler
) -> None:
    case_id = new_case(
        database, CaseState.SEGMENTING, attempts=1, lease_owner="dead", lease_until=NOON - MOMENT, rung_at=NOON
    )
    reconciler.sweep(NOON)
    case = read_case(database, case_id)
    assert (case.state, case.lease_owner, case.attempts) == (CaseState.QUEUED, None, 1)
    assert bell.rung == [case_id]
    with database.reading() as tx:
        lost = tx.query(AuditEvent).one()
    assert (lost.event, lost.actor) == ("work_lost", "reconciler")
    assert lost.fields == {"worker": "dead", "sentence": "no progress for 60 s"}


def test_a_lease_that_still_holds_is_left_alone(database: Database, bell: Bell, reconciler: Reconciler) -> None:
    case_id = new_case(database, CaseState.SEGMENTING, attempts=1, lease_owner="busy", lease_until=NOON + MOMENT)
    reconciler.sweep(NOON)
    assert read_case(database, case_id).lease_owner == "busy"
    assert bell.rung == []


def test_a_case_that_three_workers_died_on_is_parked_with_its_reason(
    database: Database, bell: Bell, reconciler: Reconciler
) -> None:
    case_id = new_case(database, CaseState.SEGMENTING, attempts=3, lease_owner="dead", lease_until=NOON - MOMENT)
    healthy_id = new_case(database, CaseState.QUEUED, series_instance_uid="1.2.4")
    reconciler.sweep(NOON)
    case = read_case(database, case_id)
    assert (case.state, case.reason) == (CaseState.FAILED, "worker_lost")
    assert case.sentence == "no progress for 60 s"
    assert bell.rung == [healthy_id], "the others go on"
