"""From durable bytes to rows: every arrival becomes an instance of a series, or is set aside with a reason.

Rows come first and are repeatable: an arrival leaves the queue only after its row is committed, so a crash anywhere
means that it is indexed again, to the same effect.
"""

from dataclasses import dataclass
from datetime import datetime

from appliance.audit import trail
from appliance.casework.case import FINAL, Move, move
from appliance.dicom.ct_slice import CtSlice, parse_slice
from appliance.dicom.ct_volume import same_image
from appliance.dicom.identity import InstanceIdentity, read_identity
from appliance.errors import SliceRefused
from appliance.records import Database, Transaction, queries
from appliance.records.tables import Case, CaseState, Instance, InstanceState
from appliance.spool import Arrival, Spool

ACTOR = "assembler"
BATCH = 100
"""Arrivals per transaction at most."""

GATHER_S = 0.7
"""How long a smaller batch may gather: one transaction and one event for many slices; progress still shows."""

_OPEN = frozenset({CaseState.RECEIVING, CaseState.INCOMPLETE})


@dataclass
class _Tally:
    """What one batch did to one case, for one audit event instead of a hundred."""

    added: int = 0
    repeated: int = 0


def index_arrivals(database: Database, spool: Spool, now: datetime) -> int:
    """Index a batch of what has arrived; returns how many objects it held, 0 while a small one still gathers."""
    batch = spool.arrivals(BATCH)
    if not batch or (len(batch) < BATCH and _still_gathers(batch[0], now)):
        return 0
    read = [(arrival, _identify(arrival)) for arrival in batch]
    for arrival, identity in read:
        usable = isinstance(identity, InstanceIdentity)
        path = spool.instance_path(arrival.digest) if usable else spool.quarantine_path(arrival.digest)
        spool.settle(arrival, path)
    with database.transaction() as tx:
        tallies: dict[int, _Tally] = {}
        for arrival, identity in read:
            if isinstance(identity, SliceRefused):
                _quarantine(tx, arrival, identity, now)
            else:
                _index(tx, spool, arrival, identity, now, tallies)
        _account(tx, tallies, now)
    for arrival, _ in read:
        spool.release(arrival)
    return len(batch)


def _still_gathers(oldest: Arrival, now: datetime) -> bool:
    age_s = (now - oldest.at).total_seconds()
    return 0.0 <= age_s < GATHER_S  # a clock that was set back must not hold up what came before


def _identify(arrival: Arrival) -> InstanceIdentity | SliceRefused:
    try:
        return read_identity(arrival.path)
    except SliceRefused as refused:
        return refused


def _quarantine(tx: Transaction, arrival: Arrival, refused: SliceRefused, now: datetime) -> None:
    known = queries.instance_by_digest(tx, arrival.digest)
    if known is not None:
        known.times_received += 1
        return
    tx.add(
        Instance(
            digest=arrival.digest,
            source_ae="",
            state=InstanceState.QUARANTINED,
            reason=refused.reason,
            sentence=refused.sentence,
            received_at=now,
        )
    )
    trail.record(tx, "instance_quarantined", at=now, actor=ACTOR, sentence=refused.sentence, digest=arrival.digest)
    tx.flush()


def _index(
    tx: Transaction,
    spool: Spool,
    arrival: Arrival,
    identity: InstanceIdentity,
    now: datetime,
    tallies: dict[int, _Tally],
) -> None:
    latest = queries.latest_case(tx, identity.series_instance_uid)
    known = queries.instance_by_digest(tx, arrival.digest)
    if known is not None:
        known.times_received += 1
        if latest is not None:
            _repeat(latest, now, tallies)
        return
    instance = Instance(
        digest=arrival.digest,
        sop_instance_uid=identity.sop_instance_uid,
        series_instance_uid=identity.series_instance_uid,
        transfer_syntax_uid=identity.transfer_syntax_uid,
        source_ae=_plain(identity.source_ae, 16),
        state=InstanceState.KEPT,
        received_at=now,
    )
    twin = queries.kept_instance(tx, identity.sop_instance_uid)
    if twin is not None:
        _compare(spool, twin, instance)
    tx.add(instance)
    tx.flush()
    if instance.state is InstanceState.QUARANTINED:
        trail.record(tx, "instance_quarantined", at=now, actor=ACTOR, sentence=instance.sentence, digest=arrival.digest)
        return
    if instance.state is InstanceState.EQUIVALENT and latest is not None:
        _repeat(latest, now, tallies)
        return
    case = _case_for(tx, latest, identity, now)
    if instance.state is InstanceState.CONFLICT:
        trail.record(tx, "instance_conflict", at=now, actor=ACTOR, case_id=case.id, digest=arrival.digest)
    queries.join_case(tx, case, [instance])
    case.last_arrival_at = now
    tallies.setdefault(case.id, _Tally()).added += 1


def _compare(spool: Spool, twin: Instance, newcomer: Instance) -> None:
    """Settle what two contents under one SOP Instance UID are to one another.

    The same image in another transfer syntax is equivalent; a damaged object gives way to a whole one, whichever
    came first; two whole and different images are a conflict that nobody can decide here.
    """
    parsed: dict[Instance, CtSlice] = {}
    for instance in (twin, newcomer):
        try:
            parsed[instance] = parse_slice(spool.instance_path(instance.digest))
        except SliceRefused as refused:
            instance.reason, instance.sentence = refused.reason, refused.sentence
    if not parsed:
        newcomer.state = InstanceState.QUARANTINED
    elif len(parsed) == 1:
        damaged = newcomer if twin in parsed else twin
        damaged.state = InstanceState.QUARANTINED
    else:
        newcomer.state = InstanceState.EQUIVALENT if _same(*parsed.values()) else InstanceState.CONFLICT


def _same(first: CtSlice, second: CtSlice) -> bool:
    try:
        return same_image(first, second)
    except SliceRefused:
        return False


def _repeat(case: Case, now: datetime, tallies: dict[int, _Tally]) -> None:
    tallies.setdefault(case.id, _Tally()).repeated += 1
    if case.state in FINAL:
        case.repeated_at = now


def _case_for(tx: Transaction, latest: Case | None, identity: InstanceIdentity, now: datetime) -> Case:
    """The open revision of the series: the latest if it still receives, else a new one with all slices so far."""
    if latest is not None and latest.state in _OPEN:
        if latest.state is CaseState.INCOMPLETE:
            move(tx, latest, Move.RECEIVE_MORE, at=now, actor=ACTOR, count=1, total=latest.slices + 1)
        return latest
    if latest is not None and latest.state not in FINAL:
        sentence = f"more slices came; revision {latest.revision + 1} takes its place"
        move(tx, latest, Move.SUPERSEDE, at=now, actor=ACTOR, sentence=sentence)
    return open_case(tx, latest, identity, now)


def open_case(tx: Transaction, previous: Case | None, identity: InstanceIdentity, now: datetime) -> Case:
    """Open the next revision of a series; it starts with every slice of the one before."""
    earlier = queries.instances_of(tx, previous) if previous is not None else []
    if previous is not None:
        previous.repeated_at = None  # whoever sent it again is answered by the new revision
    case = Case(
        series_instance_uid=identity.series_instance_uid,
        revision=previous.revision + 1 if previous is not None else 1,
        study_instance_uid=identity.study_instance_uid,
        patient_id=_plain(identity.patient_id, 64),
        accession_number=_plain(identity.accession_number, 16),
        description=_plain(f"{identity.study_description} / {identity.series_description}", 200),
        source_ae=_plain(identity.source_ae, 16),
        state=CaseState.RECEIVING,
        slices=len(earlier),
        first_arrival_at=now,
        last_arrival_at=now,
        entered_state_at=now,
        attempts=0,
        progress={},
    )
    tx.add(case)
    tx.flush()
    queries.join_case(tx, case, earlier)
    fields = {"revision": case.revision, "source_ae": case.source_ae}
    trail.record(tx, "case_opened", at=now, actor=ACTOR, case_id=case.id, **fields)
    return case


def _plain(text: str, length: int) -> str:
    """What a row can hold of a header's text: without control characters (PostgreSQL takes no NUL), and no longer."""
    return "".join(filter(str.isprintable, text))[:length]


def _account(tx: Transaction, tallies: dict[int, _Tally], now: datetime) -> None:
    for case_id, tally in tallies.items():
        case = queries.case_by_id(tx, case_id)
        if tally.added and case is not None:
            case.slices = len(queries.instances_of(tx, case))
            fields = {"count": tally.added, "total": case.slices}
            trail.record(tx, "slices_received", at=now, actor=ACTOR, case_id=case_id, **fields)
        if tally.repeated:
            trail.record(tx, "slices_repeated", at=now, actor=ACTOR, case_id=case_id, count=tally.repeated)
