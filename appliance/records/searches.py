"""What is asked of the database when somebody asks why nothing came back."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, or_, select
from sqlalchemy.orm import selectinload

from appliance.records.session import Transaction
from appliance.records.tables import AuditEvent, Case, CaseState, Instance, InstanceState

_SET_ASIDE = (InstanceState.QUARANTINED, InstanceState.CONFLICT)


@dataclass(frozen=True, slots=True)
class Sender:
    """Who has sent objects lately: how many, and when the last one came."""

    ae_title: str
    objects: int
    last_at: datetime


def cases_about(tx: Transaction, identifier: str, limit: int) -> Sequence[Case]:
    """Cases of this patient ID, accession number, study or series, the newest first, with their deliveries."""
    columns = (Case.patient_id, Case.accession_number, Case.series_instance_uid, Case.study_instance_uid)
    query = select(Case).options(selectinload(Case.deliveries)).where(or_(*(each == identifier for each in columns)))
    return tx.scalars(query.order_by(Case.id.desc()).limit(limit)).all()


def newest_of(tx: Transaction, series_instance_uid: str) -> Case:
    """The newest revision of a series."""
    query = select(Case).where(Case.series_instance_uid == series_instance_uid)
    return tx.scalars(query.order_by(Case.revision.desc()).limit(1)).one()


def set_aside(tx: Transaction, series: Collection[str], limit: int) -> Sequence[Instance]:
    """The newest objects of these series that do not count, or contradict others."""
    query = select(Instance).where(Instance.state.in_(_SET_ASIDE), Instance.series_instance_uid.in_(series))
    return tx.scalars(query.order_by(Instance.id.desc()).limit(limit)).all()


def nobody_knows_whose(tx: Transaction, since: datetime, limit: int) -> Sequence[Instance]:
    """The newest objects that were set aside before anybody could read whose they are."""
    query = select(Instance).where(
        Instance.state == InstanceState.QUARANTINED,
        Instance.series_instance_uid.is_(None),
        Instance.received_at >= since,
    )
    return tx.scalars(query.order_by(Instance.id.desc()).limit(limit)).all()


def senders(tx: Transaction, since: datetime) -> list[Sender]:
    """Who has sent since then, the latest first."""
    last = func.max(Instance.received_at)
    query = select(Instance.source_ae, func.count(), last).where(Instance.received_at >= since)
    rows = tx.execute(query.group_by(Instance.source_ae).order_by(last.desc()))
    return [Sender(ae_title, count, at) for ae_title, count, at in rows]


def last_event(tx: Transaction, case_id: int, *events: str) -> AuditEvent | None:
    """The newest of these events of a case."""
    query = select(AuditEvent).where(AuditEvent.case_id == case_id, AuditEvent.event.in_(events))
    return tx.scalar(query.order_by(AuditEvent.id.desc()).limit(1))


def events_of_box(tx: Transaction, events: Collection[str], since: datetime, limit: int) -> Sequence[AuditEvent]:
    """The newest of these events that belong to no case."""
    query = select(AuditEvent).where(AuditEvent.case_id.is_(None), AuditEvent.event.in_(events), AuditEvent.at >= since)
    return tx.scalars(query.order_by(AuditEvent.id.desc()).limit(limit)).all()


def queued_before(tx: Transaction, case: Case) -> int:
    """How many cases a worker will take before this one."""
    query = select(func.count()).where(Case.state == CaseState.QUEUED, Case.id < case.id)
    return tx.scalar(query) or 0


def seconds_of_work(tx: Transaction, limit: int) -> list[float]:
    """How long each of the newest finished cases was in a worker's hands, from its last start on."""
    begun = select(func.max(AuditEvent.at)).where(AuditEvent.event == "work_started")
    ended = select(AuditEvent).where(AuditEvent.event == "structure_set_written")
    times = []
    for row in tx.scalars(ended.order_by(AuditEvent.id.desc()).limit(limit)):
        began = tx.scalar(begun.where(AuditEvent.case_id == row.case_id, AuditEvent.id < row.id))
        if began is not None:
            times.append((row.at - began).total_seconds())
    return times
