"""Questions about the rows that have a file: which there are, and which may be removed because their term is over."""

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, and_, exists, false, func, or_, select
from sqlalchemy.orm import aliased

from appliance.records.session import Transaction
from appliance.records.tables import (
    NEVER,
    Case,
    CaseInstance,
    CaseState,
    Delivery,
    DeliveryState,
    Instance,
    InstanceState,
    Result,
)


def objects_with_files(tx: Transaction) -> list[tuple[str, bool, bool]]:
    """Digest of every received object, whether it could be sorted into a series, and whether its file was removed."""
    rows = tx.execute(select(Instance.digest, Instance.sop_instance_uid, Instance.removed_at))
    return [(digest, uid is not None, removed_at is not None) for digest, uid, removed_at in rows]


def results_with_files(tx: Transaction) -> list[tuple[str, bool]]:
    """File name of every result, and whether it was removed."""
    return [(file, removed is not None) for file, removed in tx.execute(select(Result.file, Result.removed_at))]


def digests_of_result(tx: Transaction, file: str) -> set[str]:
    """SHA-256 of the results that lie in this file: one, or none while no row names it."""
    return set(tx.scalars(select(Result.digest).where(Result.file == file)))


def images_to_remove(
    tx: Transaction, *, proved_before: datetime | None, refused_before: datetime | None, limit: int
) -> Sequence[Instance]:
    """Images that nobody here needs any more, locked for this transaction.

    Every case that an image is part of must have ended long enough ago: committed, with every delivery proved that can
    be; refused; or superseded, if the newest revision of its series has ended so. A second encoding of an image goes
    with its twin.

    Args:
        tx: the transaction.
        proved_before: when the last delivery must have been proved; None keeps such images.
        refused_before: when the case must have been refused; None keeps such images.
        limit: how many at most.
    """
    may_go = _case_may_go(proved_before, refused_before)
    part = select(CaseInstance.instance_id).join(Case, Case.id == CaseInstance.case_id)
    needed = part.where(CaseInstance.instance_id == Instance.id, ~may_go).exists()
    in_a_case = exists().where(CaseInstance.instance_id == Instance.id)
    twin = aliased(Instance)
    twin_is_gone = exists().where(
        twin.sop_instance_uid == Instance.sop_instance_uid,
        twin.state == InstanceState.KEPT,
        twin.removed_at.is_not(None),
    )
    alone = and_(Instance.state == InstanceState.EQUIVALENT, ~in_a_case, twin_is_gone)
    query = select(Instance).where(
        Instance.removed_at.is_(None),
        Instance.state != InstanceState.QUARANTINED,
        and_(in_a_case, ~needed) | alone,
    )
    return tx.scalars(query.order_by(Instance.id).limit(limit).with_for_update()).all()


def results_to_remove(tx: Transaction, *, proved_before: datetime, limit: int) -> Sequence[Result]:
    """Results that every destination has proved to keep, or that a later revision replaced there; locked."""
    query = select(Result).join(Case, Case.id == Result.case_id)
    query = query.where(Result.removed_at.is_(None), _case_may_go(proved_before, None))
    return tx.scalars(query.order_by(Result.id).limit(limit).with_for_update(of=Result)).all()


def aside_to_remove(tx: Transaction, *, received_before: datetime, limit: int) -> Sequence[Instance]:
    """Objects that were set aside before a moment; locked."""
    query = select(Instance).where(
        Instance.removed_at.is_(None),
        Instance.state == InstanceState.QUARANTINED,
        Instance.received_at < received_before,
    )
    return tx.scalars(query.order_by(Instance.id).limit(limit).with_for_update()).all()


def _case_may_go(proved_before: datetime | None, refused_before: datetime | None) -> ColumnElement[bool]:
    """Whether a case, or the newest revision of its series where it was superseded, has ended for long enough."""
    newest = aliased(Case)
    is_newest = newest.revision == (
        select(func.max(Case.revision))
        .where(Case.series_instance_uid == newest.series_instance_uid)
        .correlate(newest)
        .scalar_subquery()
    )
    same = newest.series_instance_uid == Case.series_instance_uid
    superseded = and_(
        Case.state == CaseState.SUPERSEDED,
        exists().where(same, is_newest, _has_ended(newest, proved_before, refused_before)),
    )
    return _has_ended(Case, proved_before, refused_before) | superseded


def _has_ended(
    case: type[Case], proved_before: datetime | None, refused_before: datetime | None
) -> ColumnElement[bool]:
    """Whether a case is proved or refused since before these moments, and nobody has sent its series again since."""
    ended = []
    if proved_before is not None:
        ended.append(and_(case.state == CaseState.COMMITTED, ~_unproved(case, proved_before)))
    if refused_before is not None:
        ended.append(and_(case.state == CaseState.REFUSED, case.entered_state_at < refused_before))
    return and_(case.repeated_at.is_(None), or_(false(), *ended))


def _unproved(case: type[Case], proved_before: datetime) -> ColumnElement[bool]:
    return exists().where(
        Delivery.case_id == case.id,
        or_(
            Delivery.state == DeliveryState.PENDING,
            and_(Delivery.state == DeliveryState.ACCEPTED, Delivery.next_try_at < NEVER),
            and_(Delivery.state == DeliveryState.COMMITTED, Delivery.proved_at.is_(None)),
            and_(Delivery.state == DeliveryState.COMMITTED, Delivery.proved_at >= proved_before),
        ),
    )


def marked_as_removed(tx: Transaction, names: Collection[str]) -> set[str]:
    """Those digests and file names whose rows say that the file was removed; the rows are locked."""
    objects = select(Instance).where(Instance.digest.in_(names), Instance.removed_at.is_not(None)).with_for_update()
    results = select(Result).where(Result.file.in_(names), Result.removed_at.is_not(None)).with_for_update()
    used = select(Result.file).where(Result.file.in_(names), Result.removed_at.is_(None))
    files = {result.file for result in tx.scalars(results)} - set(tx.scalars(used))
    return {instance.digest for instance in tx.scalars(objects)} | files
