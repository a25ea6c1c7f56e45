"""From durable bytes to rows: every arrival becomes an instance of a series, or is set aside with a reason.

Rows come first and are repeatable: an arrival leaves the queue only after its row is committed, so a crash anywhere
means that it is indexed again, to the same effect.
"""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from appliance.audit import trail
from appliance.casework.case import FINAL, Move, move
from appliance.casework.operating import still_collects
from appliance.dicom.header import read_sender
from appliance.dicom.identity import InstanceIdentity
from appliance.errors import Reason, SliceRefused
from appliance.failpoint import failpoint
from appliance.intake.limited_reading import LimitedReading
from appliance.records import Database, Transaction, queries
from appliance.records.tables import Case, CaseState, Instance, InstanceState
from appliance.spool import Arrival, Spool

ACTOR = "assembler"
BATCH = 100
"""Arrivals per transaction at most."""

GATHER_S = 0.7
"""How long a smaller batch may gather: one transaction and one event for many slices; progress still shows."""

_META_BYTES = 4096
"""More than our own File Meta Information takes, which says who sent what follows it."""

_OPEN = frozenset({CaseState.RECEIVING, CaseState.INCOMPLETE})


@dataclass
class _Tally:
    """What one batch did to one case, for one audit event instead of a hundred."""

    added: int = 0
    repeated: int = 0


def index_arrivals(database: Database, spool: Spool, now: datetime, reading: LimitedReading) -> int:
    """Index a batch of what has arrived; returns how many objects it held, 0 while a small one still gathers.

    Args:
        database: where the rows go.
        spool: where the objects are.
        now: the time of the round.
        reading: reads what nobody has vouched for.
    """
    batch = spool.arrivals(BATCH)
    if not batch or (len(batch) < BATCH and _still_gathers(batch[0], now)):
        return 0
    read = list(zip(batch, reading.identities([arrival.path for arrival in batch]), strict=True))
    for arrival, identity in read:
        usable = isinstance(identity, InstanceIdentity)
        path = spool.instance_path(arrival.digest) if usable else spool.quarantine_path(arrival.digest)
        spool.settle(arrival, path)
        failpoint("arrival_settled")
    with database.transaction() as tx:
        round_ = _Round(tx, spool, now, reading)
        for arrival, identity in read:
            if isinstance(identity, SliceRefused):
                round_.quarantine(arrival, identity)
            else:
                round_.index(arrival, identity)
        round_.account()
    failpoint("arrival_committed")
    for arrival, _ in read:
        spool.release(arrival)
    failpoint("arrival_released")
    return len(batch)


def _still_gathers(oldest: Arrival, now: datetime) -> bool:
    age_s = (now - oldest.at).total_seconds()
    return 0.0 <= age_s < GATHER_S  # a clock that was set back must not hold up what came before


@dataclass
class _Round:
    """One batch in one transaction."""

    tx: Transaction
    spool: Spool
    now: datetime
    reading: LimitedReading
    tallies: dict[int, _Tally] = field(default_factory=dict)

    def quarantine(self, arrival: Arrival, refused: SliceRefused) -> None:
        """Set aside what cannot belong to any series."""
        known = queries.instance_by_digest(self.tx, arrival.digest)
        if known is not None:
            known.times_received += 1
            self._bring_back(known, arrival, self.spool.quarantine_path(arrival.digest))
            return
        self.tx.add(
            Instance(
                digest=arrival.digest,
                source_ae=_plain(read_sender(_beginning(self.spool.quarantine_path(arrival.digest))), 16),
                state=InstanceState.QUARANTINED,
                reason=refused.reason,
                sentence=refused.sentence,
                received_at=self.now,
            )
        )
        self._record("instance_quarantined", sentence=refused.sentence, digest=arrival.digest)
        self.tx.flush()

    def index(self, arrival: Arrival, identity: InstanceIdentity) -> None:
        """Make an arrival an instance of its series, and of the series' open revision."""
        latest = queries.latest_case(self.tx, identity.series_instance_uid)
        known = queries.instance_by_digest(self.tx, arrival.digest)
        if known is not None:
            known.times_received += 1
            self._bring_back(known, arrival, self.spool.instance_path(arrival.digest))
            self._repeat(latest)
            return
        instance = self._instance(arrival, identity)
        if instance.state is InstanceState.QUARANTINED:
            self._record("instance_quarantined", sentence=instance.sentence, digest=arrival.digest)
            return
        if instance.state is InstanceState.EQUIVALENT and latest is not None:
            self._repeat(latest)
            return
        case = self._case_for(latest, identity)
        if instance.state is InstanceState.CONFLICT:
            self._record("instance_conflict", case_id=case.id, digest=arrival.digest)
        queries.join_case(self.tx, case, [instance])
        case.last_arrival_at = self.now
        self.tallies.setdefault(case.id, _Tally()).added += 1

    def account(self) -> None:
        """One event for each case and kind, instead of a hundred."""
        for case_id, tally in self.tallies.items():
            case = queries.case_by_id(self.tx, case_id)
            if tally.added and case is not None:
                case.slices = len(queries.instances_of(self.tx, case))
                self._record("slices_received", case_id=case_id, count=tally.added, total=case.slices)
            if tally.repeated:
                self._record("slices_repeated", case_id=case_id, count=tally.repeated)

    def _bring_back(self, known: Instance, arrival: Arrival, path: Path) -> None:
        """What retention had removed is here again; its row being locked, nobody removes it now."""
        if known.removed_at is not None:
            known.removed_at = None
            self.tx.flush()
            self.spool.settle(arrival, path)

    def _instance(self, arrival: Arrival, identity: InstanceIdentity) -> Instance:
        instance = Instance(
            digest=arrival.digest,
            sop_instance_uid=identity.sop_instance_uid,
            series_instance_uid=identity.series_instance_uid,
            transfer_syntax_uid=identity.transfer_syntax_uid,
            source_ae=_plain(identity.source_ae, 16),
            state=InstanceState.KEPT,
            received_at=self.now,
        )
        twin = queries.kept_instance(self.tx, identity.sop_instance_uid)
        if twin is not None:
            self._compare(twin, instance)
        self.tx.add(instance)
        self.tx.flush()
        return instance

    def _compare(self, twin: Instance, newcomer: Instance) -> None:
        """Settle what two contents under one SOP Instance UID are to one another.

        The same image in another transfer syntax is equivalent; a damaged object gives way to a whole one, whichever
        came first; two whole and different images are a conflict that nobody can decide here.
        """
        whole = []
        for instance in (twin, newcomer):
            try:
                self.reading.slices([self.spool.instance_path(instance.digest)])
                whole.append(instance)
            except SliceRefused as refused:
                instance.reason, instance.sentence = refused.reason, refused.sentence
            except OSError as error:
                sentence = f"the spool cannot read it ({error.strerror}); mend the disk and send it again"
                instance.reason, instance.sentence = Reason.UNREADABLE, sentence
        if len(whole) == 2:
            newcomer.state = InstanceState.EQUIVALENT if self._is_one_image(*whole) else InstanceState.CONFLICT
        elif whole == [newcomer]:
            twin.state = InstanceState.QUARANTINED
        else:
            newcomer.state = InstanceState.QUARANTINED

    def _is_one_image(self, first: Instance, second: Instance) -> bool:
        try:
            return self.reading.one_image(
                self.spool.instance_path(first.digest), self.spool.instance_path(second.digest)
            )
        except SliceRefused:
            return False

    def _repeat(self, case: Case | None) -> None:
        if case is not None:
            self.tallies.setdefault(case.id, _Tally()).repeated += 1
            if case.state in FINAL:
                case.repeated_at = self.now

    def _case_for(self, latest: Case | None, identity: InstanceIdentity) -> Case:
        """The open revision of the series: the latest if it still receives, else a new one with all slices so far."""
        if latest is not None and (latest.state in _OPEN or still_collects(latest)):
            if latest.state is CaseState.INCOMPLETE:
                total = latest.slices + 1
                move(self.tx, latest, Move.RECEIVE_MORE, at=self.now, actor=ACTOR, count=1, total=total)
            return latest
        if latest is not None and latest.state not in FINAL:
            sentence = f"more slices came; revision {latest.revision + 1} takes its place"
            move(self.tx, latest, Move.SUPERSEDE, at=self.now, actor=ACTOR, sentence=sentence)
        return open_case(self.tx, latest, identity, self.now)

    def _record(self, event: str, case_id: int | None = None, **fields: Any) -> None:
        trail.record(self.tx, event, at=self.now, actor=ACTOR, case_id=case_id, **fields)


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


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_META_BYTES)


def _plain(text: str, length: int) -> str:
    """What a row can hold of a header's text: without control characters (PostgreSQL takes no NUL), and no longer."""
    return "".join(filter(str.isprintable, text))[:length]
