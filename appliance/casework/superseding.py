"""A late slice opens the next revision of a case: what its structure set takes the place of, and when.

What lies at a destination cannot be changed from here; so the new structure set names the older one, and the older
case is superseded as soon as the new one has been delivered.
"""

from datetime import datetime

from appliance.casework.case import Move, move
from appliance.records import Transaction, queries
from appliance.records.tables import Case, CaseState, Delivery, DeliveryState, Result, ResultKind


def replaced_structure_set(tx: Transaction, case: Case) -> Result | None:
    """The structure set of an earlier revision that a destination has or may have, the newest of them."""
    for earlier in queries.earlier_revisions(tx, case):
        result = earlier.result(ResultKind.RTSTRUCT)
        deliveries = queries.deliveries_of(tx, earlier)
        if result is not None and any(_may_be_there(one) for one in deliveries if one.result_id == result.id):
            return result
    return None


def _may_be_there(delivery: Delivery) -> bool:
    if delivery.state is DeliveryState.PENDING:
        return delivery.last_tried_at is not None  # its answer may have been lost
    return delivery.state is not DeliveryState.REFUSED


def supersede_earlier(tx: Transaction, case: Case, *, at: datetime, actor: str) -> None:
    """The case has been delivered: what was delivered of its series before is superseded."""
    for earlier in queries.earlier_revisions(tx, case):
        if earlier.state in {CaseState.DELIVERED, CaseState.COMMITTED}:
            sentence = f"revision {case.revision} with {case.slices} slices was delivered in its place"
            uid = earlier.result_sop_instance_uid
            if uid is not None and uid != case.result_sop_instance_uid:
                sentence += f"; structure set {uid} stays at its destinations until somebody removes it there"
            move(tx, earlier, Move.SUPERSEDE, at=at, actor=actor, sentence=sentence)
