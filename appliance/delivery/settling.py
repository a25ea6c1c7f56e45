"""What becomes of one delivery, and of its case once the last of its deliveries has come far enough.

Every function works within the caller's transaction, on a delivery that is locked in it.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from appliance.audit import trail
from appliance.casework.case import Move, move
from appliance.casework.superseding import supersede_earlier
from appliance.errors import Reason
from appliance.records import Transaction, queries
from appliance.records.tables import NEVER, Case, CaseState, Delivery, DeliveryState, Proof, ResultKind
from appliance.settings import Peer

ACTOR = "deliverer"

_ASK_AFTER = timedelta(seconds=0.2)
"""How long a destination has to store what it accepted before it is asked whether it keeps it."""

_IN_WORDS = {Proof.COMMITMENT: "storage commitment", Proof.SIGHTING: "seen there by C-FIND"}


def what_and_where(delivery: Delivery) -> dict[str, str]:
    """What every event of a delivery tells."""
    return {"object": delivery.result.kind.in_words, "destination": delivery.destination}


def accept(
    tx: Transaction, delivery: Delivery, peers: Mapping[str, Peer], status: str, wait: timedelta, now: datetime
) -> None:
    """A destination took the result; its proof is due soon by commitment, after `wait` by sighting, or never."""
    peer = peers.get(delivery.destination)
    delivery.state, delivery.sentence, delivery.unseen = DeliveryState.ACCEPTED, None, 0
    delivery.last_tried_at, delivery.last_answer = now, f"C-STORE was answered {status}"
    if peer is not None and peer.storage_commitment:
        delivery.next_try_at = now + _ASK_AFTER
    else:
        delivery.next_try_at = now + wait if peer is not None and peer.query else NEVER
    fields = {**what_and_where(delivery), "status": status}
    trail.record(tx, "delivery_accepted", at=now, actor=ACTOR, case_id=delivery.case_id, **fields)
    settle_case(tx, delivery.case, peers, now)


def prove(tx: Transaction, delivery: Delivery, peers: Mapping[str, Peer], proof: Proof, now: datetime) -> None:
    """It is known that the destination keeps the result."""
    delivery.state, delivery.sentence = DeliveryState.COMMITTED, None
    delivery.proof, delivery.proved_at = proof, now
    fields = what_and_where(delivery)
    if proof is Proof.COMMITMENT:
        trail.record(tx, "commitment_reported", at=now, actor=ACTOR, case_id=delivery.case_id, **fields)
    else:
        trail.record(tx, "delivery_seen", at=now, actor=ACTOR, case_id=delivery.case_id, **fields)
    settle_case(tx, delivery.case, peers, now)


def send_again(tx: Transaction, delivery: Delivery, event: str, sentence: str, wait_s: float, now: datetime) -> None:
    """The destination said success and does not keep the result: the same object goes there again, after a while."""
    delivery.attempts += 1
    delivery.unseen, delivery.proof, delivery.proved_at = 0, None, None
    delivery.state, delivery.next_try_at = DeliveryState.PENDING, now + timedelta(seconds=wait_s)
    delivery.sentence, delivery.last_answer, delivery.last_tried_at = sentence, sentence, now
    fields = {**what_and_where(delivery), "sentence": sentence}
    trail.record(tx, event, at=now, actor=ACTOR, case_id=delivery.case_id, **fields)


def postpone(
    tx: Transaction, delivery: Delivery, sentence: str, wait_s: float, now: datetime, *, alarm_at: int
) -> None:
    """It did not come to anything this time; after `alarm_at` attempts an alarm is left, once."""
    delivery.attempts += 1
    delivery.next_try_at, delivery.sentence = now + timedelta(seconds=wait_s), sentence
    delivery.last_tried_at, delivery.last_answer = now, sentence
    fields = {**what_and_where(delivery), "sentence": sentence}
    trail.record(tx, "delivery_tried", at=now, actor=ACTOR, case_id=delivery.case_id, wait_s=wait_s, **fields)
    if delivery.attempts == alarm_at:
        fields = {**fields, "attempts": str(alarm_at)}
        trail.record(tx, "delivery_overdue", at=now, actor=ACTOR, case_id=delivery.case_id, **fields)


def give_up(tx: Transaction, delivery: Delivery, peers: Mapping[str, Peer], sentence: str, now: datetime) -> None:
    """The destination will never take the result."""
    delivery.state, delivery.sentence = DeliveryState.REFUSED, sentence
    delivery.last_tried_at, delivery.last_answer = now, sentence
    fields = {**what_and_where(delivery), "sentence": sentence}
    trail.record(tx, "delivery_refused", at=now, actor=ACTOR, case_id=delivery.case_id, **fields)
    settle_case(tx, delivery.case, peers, now)


def settle_case(tx: Transaction, case: Case, peers: Mapping[str, Peer], now: datetime) -> None:
    """Move the case when the last of its deliveries has come far enough.

    A destination that takes no Segmentation gets the structure set alone, and that is enough.
    """
    tx.flush()
    every = queries.deliveries_of(tx, case)
    deliveries = [
        delivery
        for delivery in every
        if delivery.state is not DeliveryState.REFUSED or delivery.result.kind is ResultKind.RTSTRUCT
    ]
    if any(delivery.state is DeliveryState.PENDING for delivery in deliveries):
        return
    refused = [delivery for delivery in deliveries if delivery.state is DeliveryState.REFUSED]
    if refused and case.state is CaseState.SENDING:
        sentence = f"{refused[0].destination} will not take the structure set: {refused[0].sentence}"
        fields = {"reason": Reason.DESTINATION_REFUSES, "sentence": sentence}
        move(tx, case, Move.FAIL, at=now, actor=ACTOR, attempts=case.attempts, **fields)
        return
    if case.state is CaseState.SENDING:
        names = ", ".join(dict.fromkeys(delivery.destination for delivery in deliveries))
        move(tx, case, Move.DELIVER, at=now, actor=ACTOR, destinations=names)
        supersede_earlier(tx, case, at=now, actor=ACTOR)
    if case.state is CaseState.DELIVERED and _all_proved(deliveries, peers):
        move(tx, case, Move.COMMIT, at=now, actor=ACTOR, destinations=_proved_by(deliveries))


def _all_proved(deliveries: Sequence[Delivery], peers: Mapping[str, Peer]) -> bool:
    """Whether every destination that can be asked for a proof has given it, and there is one."""
    provable = [
        delivery
        for delivery in deliveries
        if (peer := peers.get(delivery.destination)) is not None and (peer.storage_commitment or peer.query)
    ]
    return bool(provable) and all(delivery.state is DeliveryState.COMMITTED for delivery in provable)


def _proved_by(deliveries: Sequence[Delivery]) -> str:
    """Who keeps it and how that is known, each destination once."""
    told = {
        delivery.destination: f"{delivery.destination} ({_IN_WORDS[delivery.proof]})"
        for delivery in deliveries
        if delivery.proof is not None
    }
    return ", ".join(told.values())
