"""When is a series complete? Quiet time and a contiguous geometry must agree (docs/adr/0004).

The end of an association means nothing (PS3.4 B.4): a series may come over several, in any order, beside others.
A series that is quiet but has a gap waits for the missing slices before it is refused. A slice that comes later
opens the next revision (arrivals.py).
"""

from datetime import datetime, timedelta
from typing import Any

from appliance.audit import trail
from appliance.casework.case import Move, move
from appliance.casework.operating import force_complete, is_held_by_a_person, refuse_to_force
from appliance.casework.protocols import choose_protocol
from appliance.dicom.ct_series import assemble_series
from appliance.dicom.ct_slice import CtSlice, parse_slice
from appliance.dicom.identity import read_identity
from appliance.errors import Reason, Refused, SeriesRefused, SliceRefused
from appliance.intake.arrivals import ACTOR, index_arrivals, open_case
from appliance.intake.comparison import IsolatedComparison
from appliance.records import Database, Transaction, queries
from appliance.records.tables import Case, CaseState, Instance, InstanceState
from appliance.settings import Settings
from appliance.spool import Spool

_MAY_STILL_COME = frozenset({Reason.SLICE_MISSING, Reason.SLICE_GAPS_UNEVEN, Reason.TOO_FEW_SLICES})
"""Refusals that one more slice can cure."""


class Assembler:
    """Indexes arrivals and examines the series that have been quiet long enough."""

    def __init__(self, settings: Settings, database: Database, spool: Spool) -> None:
        self._settings = settings
        self._database = database
        self._spool = spool
        self._comparison = IsolatedComparison()

    def sweep(self, now: datetime) -> int:
        """One round; returns how many objects it indexed, so that the caller knows whether to hurry on."""
        self._collect_notes(now)
        indexed = index_arrivals(self._database, self._spool, now, self._comparison)
        known_until = self._known_until(now)
        for case_id in self._quiet_cases(known_until):
            self._examine(case_id, now)
        self._answer_repeats(known_until, now)
        return indexed

    def stop(self) -> None:
        """End what runs aside."""
        self._comparison.stop()

    def _known_until(self, now: datetime) -> datetime:
        """Everything that arrived before this instant is indexed; silence can only be told up to here.

        A backlog holds nobody up for longer than it takes to index it, and a busy sender does not hold up the
        series of others.
        """
        waiting = self._spool.arrivals(1)
        return min(now, waiting[0].at) if waiting else now

    def _collect_notes(self, now: datetime) -> None:
        """Turn what others noted without a database into audit events: the listener, and commands about models."""
        for note in self._spool.notes("audit"):
            with self._database.transaction() as tx:
                fields: dict[str, Any] = dict(note.fields)
                at = datetime.fromisoformat(fields.pop("at")) if "at" in fields else now
                trail.record(tx, fields.pop("event"), at=at, actor=fields.pop("actor", "listener"), **fields)
            note.path.unlink()

    def _quiet_cases(self, known_until: datetime) -> list[int]:
        intake = self._settings.intake
        quiet_since = known_until - timedelta(seconds=intake.series_quiet_s)
        waited_since = known_until - timedelta(seconds=intake.incomplete_wait_s)
        with self._database.reading() as tx:
            receiving = queries.cases_in(tx, CaseState.RECEIVING)
            waiting = queries.cases_in(tx, CaseState.INCOMPLETE)
            quiet = [case.id for case in receiving if case.last_arrival_at <= quiet_since or case.forced_by]
            return quiet + [case.id for case in waiting if case.entered_state_at <= waited_since or case.forced_by]

    def _examine(self, case_id: int, now: datetime) -> None:
        with self._database.transaction() as tx:
            case = queries.case_by_id(tx, case_id)
            if case is None or case.state not in {CaseState.RECEIVING, CaseState.INCOMPLETE}:
                return
            instances = list(queries.instances_of(tx, case))
            try:
                self._complete(tx, case, instances, now)
            except Refused as refused:
                self._refuse_or_wait(tx, case, refused, now)
            except OSError as error:
                sentence = f"a slice in the spool cannot be read ({error.strerror}); mend the disk and send it again"
                self._refuse_or_wait(tx, case, SliceRefused(Reason.UNREADABLE, sentence), now)

    def _complete(self, tx: Transaction, case: Case, instances: list[Instance], now: datetime) -> None:
        slices = self._slices(instances)
        first = read_identity(self._spool.instance_path(instances[0].digest))
        protocol = choose_protocol(first, self._settings.protocols.values())
        series = assemble_series(slices, uneven_gaps=protocol.uneven_gaps)
        count, extent_mm = len(instances), float(series.geometry.gaps_mm.sum())
        if case.forced_by is None:
            quiet_s = (now - case.last_arrival_at).total_seconds()
            fields = {"slices": count, "quiet_s": quiet_s, "extent_mm": extent_mm}
            move(tx, case, Move.COMPLETE, at=now, actor=ACTOR, **fields)
        else:
            force_complete(tx, case, at=now, slices=count, extent_mm=extent_mm)
        case.protocol, case.model = protocol.name, ", ".join(protocol.models)
        chosen = {"protocol": protocol.name, "model": case.model}
        trail.record(tx, "protocol_chosen", at=now, actor=ACTOR, case_id=case.id, **chosen)

    def _slices(self, instances: list[Instance]) -> list[CtSlice]:
        if any(instance.state is InstanceState.CONFLICT for instance in instances):
            raise SeriesRefused(
                Reason.INSTANCE_CONFLICT,
                "a SOP Instance UID came with two different contents; find out at the sender which is right "
                "and send it as a new series",
            )
        return [parse_slice(self._spool.instance_path(instance.digest)) for instance in instances]

    def _refuse_or_wait(self, tx: Transaction, case: Case, refused: Refused, now: datetime) -> None:
        if case.forced_by is not None:
            refuse_to_force(tx, case, at=now, actor=ACTOR, sentence=refused.sentence)
        elif refused.reason in _MAY_STILL_COME and case.state is CaseState.RECEIVING:
            wait_s = self._settings.intake.incomplete_wait_s
            fields = {"reason": refused.reason, "sentence": refused.sentence, "wait_s": wait_s}
            move(tx, case, Move.WAIT_FOR_SLICES, at=now, actor=ACTOR, **fields)
        else:
            fields = {"reason": refused.reason, "sentence": refused.sentence}
            move(tx, case, Move.REFUSE, at=now, actor=ACTOR, **fields)

    def _answer_repeats(self, known_until: datetime, now: datetime) -> None:
        """A finished series that came again: whoever sent it wants the answer again."""
        quiet_since = known_until - timedelta(seconds=self._settings.intake.series_quiet_s)
        with self._database.transaction() as tx:
            for case in queries.cases_sent_again(tx, quiet_since):
                case.repeated_at = None
                if case.state in {CaseState.DELIVERED, CaseState.COMMITTED}:
                    move(tx, case, Move.REPEAT, at=now, actor=ACTOR)
                    destinations = [delivery.destination for delivery in queries.deliveries_of(tx, case)]
                    queries.put_in_outbox(tx, case, destinations, now)
                elif case.state in {CaseState.REFUSED, CaseState.FAILED} and not is_held_by_a_person(case):
                    self._reconsider(tx, case, now)

    def _reconsider(self, tx: Transaction, case: Case, now: datetime) -> None:
        """A refused series that came again is looked at afresh: the configuration may have changed meanwhile."""
        first = queries.instances_of(tx, case)[0]
        open_case(tx, case, read_identity(self._spool.instance_path(first.digest)), now)
