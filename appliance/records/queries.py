"""Every question that the appliance asks its database, by name."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import product

from sqlalchemy import delete, func, or_, select
from sqlalchemy.orm import selectinload

from appliance.records.session import Transaction
from appliance.records.tables import (
    AuditEvent,
    Case,
    CaseInstance,
    CaseState,
    Delivery,
    DeliveryState,
    Instance,
    InstanceState,
    Part,
    PartState,
    Result,
    ResultKind,
)


def case_by_id(tx: Transaction, case_id: int) -> Case | None:
    """One case, locked for this transaction where the database can."""
    return tx.scalar(select(Case).where(Case.id == case_id).with_for_update())


def latest_case(tx: Transaction, series_instance_uid: str) -> Case | None:
    """The newest revision of a series, locked for this transaction."""
    query = select(Case).where(Case.series_instance_uid == series_instance_uid)
    return tx.scalar(query.order_by(Case.revision.desc()).limit(1).with_for_update())


def cases_in(tx: Transaction, *states: CaseState) -> Sequence[Case]:
    """Cases in any of the states, oldest first."""
    return tx.scalars(select(Case).where(Case.state.in_(states)).order_by(Case.id)).all()


def recent_cases(tx: Transaction, limit: int) -> Sequence[Case]:
    """The newest cases with their deliveries, oldest first."""
    query = select(Case).options(selectinload(Case.deliveries)).order_by(Case.id.desc()).limit(limit)
    return list(reversed(tx.scalars(query).all()))


def cases_to_ring(tx: Transaction, now: datetime, again_after: timedelta) -> Sequence[Case]:
    """Queued cases whose doorbell was never rung, or so long ago that it may be lost."""
    unheard = or_(Case.rung_at.is_(None), Case.rung_at <= now - again_after)
    return tx.scalars(select(Case).where(Case.state == CaseState.QUEUED, unheard).order_by(Case.id)).all()


def cases_with_expired_lease(tx: Transaction, now: datetime) -> Sequence[Case]:
    """Cases that a worker holds but has not renewed in time."""
    query = select(Case).where(Case.state == CaseState.SEGMENTING, Case.lease_until < now)
    return tx.scalars(query.order_by(Case.id).with_for_update()).all()


def cases_sent_again(tx: Transaction, before: datetime) -> Sequence[Case]:
    """Cases whose series came again after it had been complete, and has been quiet since `before`."""
    return tx.scalars(select(Case).where(Case.repeated_at <= before).order_by(Case.id).with_for_update()).all()


def instance_by_digest(tx: Transaction, digest: str) -> Instance | None:
    """The instance with this content, if it ever came."""
    return tx.scalar(select(Instance).where(Instance.digest == digest))


def kept_instance(tx: Transaction, sop_instance_uid: str) -> Instance | None:
    """The first kept instance with this SOP Instance UID."""
    query = select(Instance).where(Instance.sop_instance_uid == sop_instance_uid, Instance.state == InstanceState.KEPT)
    return tx.scalar(query)


def instances_of(tx: Transaction, case: Case) -> Sequence[Instance]:
    """The instances of one revision that count, in order of arrival: those set aside since are left out."""
    query = select(Instance).join(CaseInstance, CaseInstance.instance_id == Instance.id)
    counting = Instance.state.in_((InstanceState.KEPT, InstanceState.CONFLICT))
    return tx.scalars(query.where(CaseInstance.case_id == case.id, counting).order_by(Instance.id)).all()


def quarantined(tx: Transaction, limit: int) -> Sequence[Instance]:
    """The newest objects that were set aside."""
    query = select(Instance).where(Instance.state == InstanceState.QUARANTINED)
    return tx.scalars(query.order_by(Instance.id.desc()).limit(limit)).all()


def instance_counts(tx: Transaction) -> dict[InstanceState, int]:
    """How many received objects there are in each state."""
    rows = tx.execute(select(Instance.state, func.count()).group_by(Instance.state))
    return {row[0]: row[1] for row in rows}


def join_case(tx: Transaction, case: Case, instances: Iterable[Instance]) -> None:
    """Make the instances part of this revision."""
    tx.add_all(CaseInstance(case_id=case.id, instance_id=instance.id) for instance in instances)


def due_deliveries(tx: Transaction, now: datetime) -> Sequence[Delivery]:
    """Deliveries of cases on their way whose time has come, the longest waiting first."""
    open_states = (DeliveryState.PENDING, DeliveryState.ACCEPTED)
    query = (
        select(Delivery)
        .join(Case)
        .options(selectinload(Delivery.case))
        .where(
            Delivery.state.in_(open_states),
            Delivery.next_try_at <= now,
            Case.state.in_((CaseState.SENDING, CaseState.DELIVERED)),
        )
        .order_by(Delivery.next_try_at, Delivery.id)
    )
    return tx.scalars(query).all()


def delivery_by_id(tx: Transaction, delivery_id: int) -> Delivery | None:
    """One delivery with its case, locked for this transaction."""
    query = select(Delivery).options(selectinload(Delivery.case)).where(Delivery.id == delivery_id)
    return tx.scalar(query.with_for_update())


def delivery_by_commitment(tx: Transaction, transaction_uid: str) -> Delivery | None:
    """The delivery that was asked about under this storage commitment transaction, lately or some time ago.

    A destination may take longer to answer than we wait before we ask again, under another UID; the trail remembers.
    """
    query = select(Delivery).options(selectinload(Delivery.case)).with_for_update()
    asked_last = tx.scalar(query.where(Delivery.commitment_uid == transaction_uid))
    if asked_last is not None:
        return asked_last
    uid = AuditEvent.fields["transaction_uid"].as_string()
    asked = tx.scalar(select(AuditEvent).where(AuditEvent.event == "commitment_requested", uid == transaction_uid))
    if asked is None:
        return None
    what = asked.fields.get("object", ResultKind.RTSTRUCT.in_words)  # there was nothing else at first
    there = query.where(Delivery.case_id == asked.case_id, Delivery.destination == asked.fields["destination"])
    return next((delivery for delivery in tx.scalars(there) if delivery.result.kind.in_words == what), None)


def note_results(tx: Transaction, case: Case, made: Iterable[Result]) -> None:
    """Write down what was made for a case; a kind that is no longer made is forgotten with its deliveries."""
    new = {result.kind: result for result in made}
    for old in list(case.results):
        same = new.pop(old.kind, None)
        if same is not None:
            old.sop_instance_uid, old.digest, old.file = same.sop_instance_uid, same.digest, same.file
            continue
        tx.execute(delete(Delivery).where(Delivery.result_id == old.id))
        case.results.remove(old)
    case.results.extend(new.values())
    tx.flush()


def put_in_outbox(tx: Transaction, case: Case, destinations: Iterable[str], now: datetime) -> None:
    """Make the case's results due at each destination, whatever became of an earlier sending."""
    known = {(delivery.result_id, delivery.destination): delivery for delivery in deliveries_of(tx, case)}
    for destination, result in product(dict.fromkeys(destinations), case.results):
        delivery = known.get((result.id, destination))
        if delivery is None:
            delivery = Delivery(case_id=case.id, result_id=result.id, destination=destination)
        delivery.state, delivery.next_try_at, delivery.attempts = DeliveryState.PENDING, now, 0
        delivery.sentence = None
        tx.add(delivery)


def deliveries_of(tx: Transaction, case: Case) -> Sequence[Delivery]:
    """All deliveries of one case."""
    return tx.scalars(select(Delivery).where(Delivery.case_id == case.id).order_by(Delivery.id)).all()


def parts_of(tx: Transaction, case_id: int) -> Sequence[Part]:
    """The parts of one case, in the order in which they were written down."""
    return tx.scalars(select(Part).where(Part.case_id == case_id).order_by(Part.id)).all()


def part_of(tx: Transaction, case_id: int, model: str) -> Part | None:
    """One model's part of a case, locked for this transaction.

    Whoever locks a part as well as its case locks the part first; an event of the case counts as locking it.
    """
    return tx.scalar(select(Part).where(Part.case_id == case_id, Part.model == model).with_for_update())


def parts_in_work(tx: Transaction, worker: str) -> Sequence[Part]:
    """The parts that a worker is at, locked for this transaction."""
    query = select(Part).where(Part.lease_owner == worker, Part.state == PartState.WORKING)
    return tx.scalars(query.order_by(Part.id).with_for_update()).all()


def idle_parts(tx: Transaction) -> Sequence[Part]:
    """Parts of cases that nobody will work on any more."""
    open_states = (CaseState.QUEUED, CaseState.SEGMENTING, CaseState.FAILED)
    query = select(Part).join(Case, Case.id == Part.case_id).where(Case.state.not_in(open_states))
    return tx.scalars(query.order_by(Part.id)).all()


def forget_parts(tx: Transaction, parts: Iterable[Part]) -> None:
    """Delete rows of parts, as far as nobody else has."""
    tx.execute(delete(Part).where(Part.id.in_([part.id for part in parts])))
