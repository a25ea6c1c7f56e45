"""Every question that the appliance asks its database, by name."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import product

from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, select, update
from sqlalchemy.orm import aliased, selectinload

from appliance.records.session import Transaction
from appliance.records.tables import (
    NEVER,
    AuditEvent,
    Case,
    CaseInstance,
    CaseState,
    CountSign,
    Delivery,
    DeliveryState,
    Instance,
    InstanceState,
    Part,
    PartState,
    Result,
    ResultKind,
)

_OPEN_DELIVERIES = (DeliveryState.PENDING, DeliveryState.ACCEPTED)
_SENDING = (CaseState.SENDING, CaseState.DELIVERED)
"""States of cases whose deliveries are on their way or wait for their proof."""


_IN_ONE_QUESTION = 500
"""Values that are listed in one question; databases have a limit."""


def case_by_id(tx: Transaction, case_id: int) -> Case | None:
    """One case, locked for this transaction where the database can."""
    return tx.scalar(select(Case).where(Case.id == case_id).with_for_update())


def latest_case(tx: Transaction, series_instance_uid: str) -> Case | None:
    """The newest revision of a series, locked for this transaction."""
    query = select(Case).where(Case.series_instance_uid == series_instance_uid)
    return tx.scalar(query.order_by(Case.revision.desc()).limit(1).with_for_update())


def earlier_revisions(tx: Transaction, case: Case) -> Sequence[Case]:
    """The revisions of a series before this one, the newest first, locked for this transaction."""
    same_series = (Case.series_instance_uid == case.series_instance_uid, Case.revision < case.revision)
    return tx.scalars(select(Case).where(*same_series).order_by(Case.revision.desc()).with_for_update()).all()


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


def cases_sent_again(tx: Transaction) -> Sequence[Case]:
    """Cases whose series came again after it had been complete."""
    return tx.scalars(select(Case).where(Case.repeated_at.is_not(None)).order_by(Case.id)).all()


def cases_to_count(tx: Transaction) -> Sequence[Case]:
    """Cases that still receive and whose count at the PACS is wanted, the longest waiting first."""
    open_states = (CaseState.RECEIVING, CaseState.INCOMPLETE)
    wanted = (Case.count_wanted_at.is_not(None), Case.state.in_(open_states))
    return tx.scalars(select(Case).where(*wanted).order_by(Case.count_wanted_at, Case.id)).all()


def cases_short(tx: Transaction) -> Sequence[Case]:
    """Cases that wait for slices which the PACS has."""
    where = (Case.state == CaseState.INCOMPLETE, Case.count_sign == CountSign.SHORT)
    return tx.scalars(select(Case).where(*where).order_by(Case.id)).all()


def instance_by_digest(tx: Transaction, digest: str) -> Instance | None:
    """The instance with this content, if it ever came, locked for this transaction."""
    return tx.scalar(select(Instance).where(Instance.digest == digest).with_for_update())


def kept_instance(tx: Transaction, sop_instance_uid: str) -> Instance | None:
    """The kept instance with this SOP Instance UID whose file is still here."""
    query = select(Instance).where(Instance.sop_instance_uid == sop_instance_uid, Instance.state == InstanceState.KEPT)
    return tx.scalar(query.where(Instance.removed_at.is_(None)))


def instances_named(tx: Transaction, sop_instance_uid: str) -> Sequence[Instance]:
    """Every content that came under this SOP Instance UID, whatever became of it."""
    return tx.scalars(select(Instance).where(Instance.sop_instance_uid == sop_instance_uid)).all()


def instances_of(tx: Transaction, case: Case) -> Sequence[Instance]:
    """The instances of one revision that count, in order of arrival.

    Those that were set aside since, or whose file retention has removed, are left out.
    """
    query = select(Instance).join(CaseInstance, CaseInstance.instance_id == Instance.id)
    counting = Instance.state.in_((InstanceState.KEPT, InstanceState.CONFLICT))
    return tx.scalars(
        query.where(CaseInstance.case_id == case.id, counting, Instance.removed_at.is_(None)).order_by(Instance.id)
    ).all()


def sop_instance_uids_here(tx: Transaction, series_instance_uid: str) -> set[str]:
    """SOP Instance UIDs of a series that came and are no damage, whatever became of its cases."""
    usable = Instance.state != InstanceState.QUARANTINED
    rows = tx.scalars(
        select(Instance.sop_instance_uid).where(Instance.series_instance_uid == series_instance_uid, usable)
    )
    return {uid for uid in rows if uid is not None}


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


@dataclass(frozen=True, slots=True)
class Due:
    """When a delivery is due.

    Attributes:
        now: the time.
        horizon: nothing is ever put off for longer than this: what says so was put off by a clock that was wrong, and
            is due now.
        patience: a result waits for every earlier one of the same patient that is still to be sent to the same
            destination, unless that has failed so often: one that nobody takes must not hold up the others for ever.
    """

    now: datetime
    horizon: timedelta
    patience: int


def destinations_due(tx: Transaction, due: Due) -> list[str]:
    """The destinations for which something is due, the longest waiting first."""
    query = select(Delivery.destination).join(Case).where(_is_due(due))
    return list(tx.scalars(query.group_by(Delivery.destination).order_by(func.min(Delivery.id))))


def next_delivery(
    tx: Transaction,
    destination: str,
    state: DeliveryState,
    due: Due,
    last: Collection[int] = (),
) -> Delivery | None:
    """What one destination is to be sent next (pending), or asked about next (accepted); None when nothing is due.

    Those in `last` are tried when no other is due.
    """
    query = select(Delivery).join(Case).options(selectinload(Delivery.case))
    query = query.where(Delivery.destination == destination, Delivery.state == state, _is_due(due))
    return tx.scalar(query.order_by(Delivery.id.in_(last), Delivery.id).limit(1))


def _is_due(due: Due) -> ColumnElement[bool]:
    wrong_clock = and_(Delivery.next_try_at > due.now + due.horizon, Delivery.next_try_at < NEVER)
    in_time = or_(Delivery.next_try_at <= due.now, wrong_clock)
    goes_on = or_(Delivery.state == DeliveryState.ACCEPTED, ~_held_back(due.patience))
    return and_(Delivery.state.in_(_OPEN_DELIVERIES), in_time, Case.state.in_(_SENDING), goes_on)


def _held_back(patience: int) -> ColumnElement[bool]:
    earlier, its_case = aliased(Delivery), aliased(Case)
    same_patient = or_(
        and_(its_case.patient_id == Case.patient_id, Case.patient_id != ""),
        its_case.study_instance_uid == Case.study_instance_uid,
    )
    return exists().where(
        earlier.destination == Delivery.destination,
        earlier.id < Delivery.id,
        earlier.state == DeliveryState.PENDING,
        earlier.attempts < patience,
        its_case.id == earlier.case_id,
        its_case.state.in_(_SENDING),
        same_patient,
    )


def hold_up(
    tx: Transaction, destination: str, state: DeliveryState, until: datetime, horizon: timedelta, sentence: str
) -> None:
    """Nothing in `state` is brought on at a destination before `until`, and the rows say so."""
    early = or_(
        Delivery.next_try_at < until, and_(Delivery.next_try_at > until + horizon, Delivery.next_try_at < NEVER)
    )
    waiting = and_(Delivery.destination == destination, Delivery.state == state, early)
    tx.execute(
        update(Delivery)
        .where(waiting)
        .values(next_try_at=until, sentence=func.coalesce(Delivery.sentence, sentence))
        .execution_options(synchronize_session=False)
    )


def delivered_since(tx: Transaction, destination: str, since: datetime) -> Sequence[Delivery]:
    """What a destination has accepted of cases that were delivered since then, unless a later revision replaced it."""
    later = aliased(Case)
    replaced = exists().where(later.series_instance_uid == Case.series_instance_uid, later.revision > Case.revision)
    query = select(Delivery).join(Case).join(Result, Result.id == Delivery.result_id)
    query = query.options(selectinload(Delivery.case)).where(
        Delivery.destination == destination,
        Delivery.state.in_((DeliveryState.ACCEPTED, DeliveryState.COMMITTED)),
        Case.state.in_((CaseState.SENDING, CaseState.DELIVERED, CaseState.COMMITTED)),
        Case.entered_state_at >= since,
        Result.removed_at.is_(None),
        ~replaced,
    )
    return tx.scalars(query.order_by(Delivery.id)).all()


def known_series(tx: Transaction, series_instance_uids: Sequence[str]) -> set[str]:
    """Those of the series of which something has come."""
    known: set[str] = set()
    for first in range(0, len(series_instance_uids), _IN_ONE_QUESTION):
        some = series_instance_uids[first : first + _IN_ONE_QUESTION]
        known |= set(tx.scalars(select(Case.series_instance_uid).where(Case.series_instance_uid.in_(some))))
    return known


def cases_without_result(tx: Transaction, since: datetime, before: datetime) -> Sequence[Case]:
    """Cases that came since then and have neither ended nor moved since `before`, and those that failed."""
    ended = (CaseState.DELIVERED, CaseState.COMMITTED, CaseState.REFUSED, CaseState.CANCELLED, CaseState.SUPERSEDED)
    query = select(Case).where(Case.state.not_in(ended), Case.first_arrival_at >= since)
    return tx.scalars(query.where(Case.entered_state_at < before).order_by(Case.id)).all()


def last_event(tx: Transaction, event: str) -> datetime | None:
    """When something of this kind happened last."""
    return tx.scalar(select(AuditEvent.at).where(AuditEvent.event == event).order_by(AuditEvent.id.desc()).limit(1))


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
            old.removed_at = None
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
        delivery.sentence = delivery.proof = delivery.proved_at = None
        delivery.unseen = 0
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
