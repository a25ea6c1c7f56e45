"""What a person may do with a case: only where its state allows it, with name and reason, and it can be taken back."""

import pytest

from appliance.casework.case import MoveNotAllowed
from appliance.casework.lease import Lease, LeaseLost
from appliance.casework.operating import Operator, ask_to_complete, cancel, park, retry
from appliance.records import Database, queries
from appliance.records.tables import AuditEvent, CaseState, DeliveryState, ResultKind
from tests.support.rows import NOON, new_case, new_delivery, read_case, read_delivery

JANE = Operator("jane", NOON, "the planner asked for it")
RUNNING = [
    CaseState.RECEIVING,
    CaseState.INCOMPLETE,
    CaseState.QUEUED,
    CaseState.SEGMENTING,
    CaseState.SENDING,
]
COLLECTING = [CaseState.RECEIVING, CaseState.INCOMPLETE]
STOPS = [(park, CaseState.FAILED, "parked_by_operator"), (cancel, CaseState.CANCELLED, "cancelled_by_operator")]


def _do(database: Database, what: object, case_id: int, who: Operator = JANE) -> None:
    with database.transaction() as tx:
        case = queries.case_by_id(tx, case_id)
        assert case is not None
        what(tx, case, who)  # type: ignore[operator]


def _last_event(database: Database) -> AuditEvent:
    with database.reading() as tx:
        return tx.query(AuditEvent).order_by(AuditEvent.id.desc()).limit(1).one()


@pytest.mark.parametrize(("stop", "state", "reason"), STOPS, ids=["park", "cancel"])
@pytest.mark.parametrize("before", RUNNING)
def test_a_case_under_way_is_stopped_and_the_trail_says_by_whom_and_why(
    database: Database, before: CaseState, stop: object, state: CaseState, reason: str
) -> None:
    case_id = new_case(database, before)
    _do(database, stop, case_id)
    case, event = read_case(database, case_id), _last_event(database)
    assert (case.state, case.reason, case.sentence) == (state, reason, "the planner asked for it")
    assert (event.actor, event.fields["by"]) == ("operator:jane", "jane")


@pytest.mark.parametrize(("stop", "verb"), [(park, "parked"), (cancel, "cancelled")])
@pytest.mark.parametrize(
    "state", [CaseState.DELIVERED, CaseState.COMMITTED, CaseState.REFUSED, CaseState.SUPERSEDED, CaseState.CANCELLED]
)
def test_what_has_ended_cannot_be_stopped(database: Database, state: CaseState, stop: object, verb: str) -> None:
    case_id = new_case(database, state)
    with pytest.raises(MoveNotAllowed, match=f"is {state}; there is nothing left that could be {verb}"):
        _do(database, stop, case_id)
    assert read_case(database, case_id).state is state


def test_a_parked_case_can_be_cancelled(database: Database) -> None:
    case_id = new_case(database, CaseState.FAILED)
    _do(database, cancel, case_id)
    assert read_case(database, case_id).state is CaseState.CANCELLED


@pytest.mark.parametrize("stop", [park, cancel])
def test_a_worker_notices_at_its_next_progress_that_its_case_was_stopped(database: Database, stop: object) -> None:
    case_id = new_case(database, CaseState.QUEUED, protocol="bones")
    lease = Lease(database, case_id, "worker-1", 60.0, lambda: False)
    assert lease.take()
    _do(database, stop, case_id)
    with pytest.raises(LeaseLost):
        lease.progress("segment", 1, 10)


@pytest.mark.parametrize("stop", [park, cancel])
@pytest.mark.parametrize("before", COLLECTING)
def test_a_case_stopped_while_it_received_waits_for_slices_again(
    database: Database, before: CaseState, stop: object
) -> None:
    case_id = new_case(database, before)
    _do(database, stop, case_id)
    _do(database, retry, case_id)
    case = read_case(database, case_id)
    assert (case.state, case.reason, case.sentence) == (CaseState.RECEIVING, None, None)


@pytest.mark.parametrize("stop", [park, cancel])
@pytest.mark.parametrize("before", [CaseState.QUEUED, CaseState.SEGMENTING])
def test_a_case_stopped_before_it_had_a_result_is_queued_with_all_its_attempts(
    database: Database, before: CaseState, stop: object
) -> None:
    case_id = new_case(database, before, protocol="bones", attempts=2, rung_at=NOON)
    _do(database, stop, case_id)
    _do(database, retry, case_id)
    case = read_case(database, case_id)
    assert (case.state, case.attempts, case.rung_at) == (CaseState.QUEUED, 0, None)


@pytest.mark.parametrize("stop", [park, cancel])
def test_a_case_stopped_while_it_was_sent_goes_on_sending_what_was_not_taken(database: Database, stop: object) -> None:
    results = {ResultKind.RTSTRUCT: "1.2.3.4"}
    case_id = new_case(database, CaseState.SENDING, results, protocol="bones")
    taken = new_delivery(database, case_id, "pacs", state=DeliveryState.ACCEPTED)
    refused = new_delivery(database, case_id, "tps", state=DeliveryState.REFUSED, attempts=9, sentence="no")
    _do(database, stop, case_id)
    _do(database, retry, case_id)
    assert read_case(database, case_id).state is CaseState.SENDING
    assert read_delivery(database, taken).state is DeliveryState.ACCEPTED
    again = read_delivery(database, refused)
    assert (again.state, again.attempts, again.next_try_at, again.sentence) == (DeliveryState.PENDING, 0, NOON, None)


def test_a_case_whose_result_was_taken_while_it_stood_still_does_not_stick(database: Database) -> None:
    case_id = new_case(database, CaseState.SENDING, {ResultKind.RTSTRUCT: "1.2.3.4"}, protocol="bones")
    delivery = new_delivery(database, case_id)
    _do(database, park, case_id)
    with database.transaction() as tx:
        row = queries.delivery_by_id(tx, delivery)
        assert row is not None
        row.state = DeliveryState.ACCEPTED
    _do(database, retry, case_id)
    assert read_delivery(database, delivery).state is DeliveryState.PENDING, "else nothing would settle it"


@pytest.mark.parametrize(
    "state", [state for state in CaseState if state not in {CaseState.FAILED, CaseState.CANCELLED}]
)
def test_only_a_parked_or_cancelled_case_can_be_tried_again(database: Database, state: CaseState) -> None:
    case_id = new_case(database, state)
    words = "only a case that is failed can be tried again, or one that was cancelled"
    with pytest.raises(MoveNotAllowed, match=words):
        _do(database, retry, case_id)


def test_a_case_that_a_later_revision_has_replaced_is_not_tried_again(database: Database) -> None:
    case_id = new_case(database, CaseState.FAILED)
    later = new_case(database, CaseState.DELIVERED, revision=2)
    with pytest.raises(MoveNotAllowed, match=f"has a later revision, case {later}; act on that one"):
        _do(database, retry, case_id)


@pytest.mark.parametrize("state", [state for state in CaseState if state not in COLLECTING])
def test_only_a_case_that_waits_for_slices_can_be_taken_as_complete(database: Database, state: CaseState) -> None:
    case_id = new_case(database, state)
    with pytest.raises(MoveNotAllowed, match="only a case that is receiving or incomplete can be taken as complete"):
        _do(database, ask_to_complete, case_id)


def test_a_person_who_gives_no_reason_is_quoted_so(database: Database) -> None:
    case_id = new_case(database, CaseState.QUEUED)
    _do(database, park, case_id, Operator("jane", NOON))
    assert read_case(database, case_id).sentence == "no reason given"
