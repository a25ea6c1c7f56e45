"""What became of everything that was ever received: delivered, refused, parked, cancelled, aside or in progress."""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import exists, func, select
from sqlalchemy.orm import aliased

from appliance.records.session import Transaction
from appliance.records.tables import (
    Case,
    CaseInstance,
    CaseState,
    Delivery,
    DeliveryState,
    Instance,
    InstanceState,
)

_DONE = (CaseState.DELIVERED, CaseState.COMMITTED)
_ENDED = (*_DONE, CaseState.REFUSED, CaseState.FAILED, CaseState.CANCELLED, CaseState.SUPERSEDED)


@dataclass(frozen=True, slots=True)
class Account:
    """Received objects by what became of them, each content counted once, by the newest revision that it is part of.

    Attributes:
        received: rows of objects in all.
        delivered: their series has a result that every destination has.
        refused: their series was refused, for a reason that its case tells.
        parked: their case failed, or was parked, and waits for a person.
        cancelled: their case was ended by a person.
        aside: quarantined, or the same image once more in another transfer syntax.
        in_progress: their case is on its way.
        residue: a sentence for all that is in none of these places, or on its way with nobody to bring it on.
    """

    received: int
    delivered: int
    refused: int
    parked: int
    cancelled: int
    aside: int
    in_progress: int
    residue: tuple[str, ...]


def account(tx: Transaction) -> Account:
    """Draw up the account from the rows alone."""
    newest = (
        select(CaseInstance.instance_id, func.max(CaseInstance.case_id).label("case_id"))
        .group_by(CaseInstance.instance_id)
        .subquery()
    )
    fates = (
        select(Instance.state, Case.state, func.count())
        .outerjoin(newest, newest.c.instance_id == Instance.id)
        .outerjoin(Case, Case.id == newest.c.case_id)
        .group_by(Instance.state, Case.state)
    )
    counts = {(row[0], row[1]): int(row[2]) for row in tx.execute(fates)}
    aside = (InstanceState.QUARANTINED, InstanceState.EQUIVALENT)

    def cases_in(*states: CaseState) -> int:
        return sum(count for (own, case), count in counts.items() if own not in aside and case in states)

    return Account(
        received=sum(counts.values()),
        delivered=cases_in(*_DONE),
        refused=cases_in(CaseState.REFUSED),
        parked=cases_in(CaseState.FAILED),
        cancelled=cases_in(CaseState.CANCELLED),
        aside=sum(count for (own, _), count in counts.items() if own in aside),
        in_progress=cases_in(*(state for state in CaseState if state not in _ENDED)),
        residue=(*_instances_in_no_place(tx), *_cases_nobody_brings_on(tx)),
    )


def _instances_in_no_place(tx: Transaction) -> Iterator[str]:
    in_a_case = exists().where(CaseInstance.instance_id == Instance.id)
    counting = (InstanceState.KEPT, InstanceState.CONFLICT)
    for instance in tx.scalars(select(Instance).where(Instance.state.in_(counting), ~in_a_case)):
        yield f"object {instance.digest[:12]}… is {instance.state} but belongs to no case"
    twin = aliased(Instance)
    has_twin = exists().where(twin.sop_instance_uid == Instance.sop_instance_uid, twin.state == InstanceState.KEPT)
    for instance in tx.scalars(select(Instance).where(Instance.state == InstanceState.EQUIVALENT, ~has_twin)):
        yield f"object {instance.digest[:12]}… is equivalent to one that is not kept"


def _cases_nobody_brings_on(tx: Transaction) -> Iterator[str]:
    sent_nowhere = ~exists().where(Delivery.case_id == Case.id)
    for case in tx.scalars(select(Case).where(Case.state.in_((*_DONE, CaseState.SENDING)), sent_nowhere)):
        yield f"case {case.id} is {case.state}, but its result goes nowhere"
    still_open = exists().where(Delivery.case_id == Case.id, Delivery.state == DeliveryState.PENDING)
    for case in tx.scalars(select(Case).where(Case.state == CaseState.SENDING, ~still_open, ~sent_nowhere)):
        yield f"case {case.id} is {case.state}, but nothing of it is left to send"
    later = aliased(Case)
    has_later = exists().where(later.series_instance_uid == Case.series_instance_uid, later.revision > Case.revision)
    for case in tx.scalars(select(Case).where(Case.state == CaseState.SUPERSEDED, ~has_later)):
        yield f"case {case.id} is {case.state}, but no later revision of its series is there"
    without = ~exists().where(CaseInstance.case_id == Case.id)
    for case in tx.scalars(select(Case).where(without)):
        yield f"case {case.id} has no slices"
