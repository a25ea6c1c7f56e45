"""When is a series complete? Quiet time, a contiguous geometry and the PACS's own count must agree (docs/adr/0029).

The end of an association means nothing (PS3.4 B.4): a series may come over several, in any order, beside others.
A series that is quiet but not whole waits for the missing slices before it is refused. A slice that comes later
opens the next revision (arrivals.py). The PACS is asked aside (counting.py): nobody here waits for it on the line.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from appliance.audit import trail
from appliance.casework.case import Move, move
from appliance.casework.operating import force_complete, is_held_by_a_person, refuse_to_force
from appliance.casework.protocols import choose_protocol
from appliance.clock import monotonic_s
from appliance.dicom.ct_series import assemble_series
from appliance.dicom.ct_slice import CtSlice
from appliance.errors import Reason, Refused, SeriesRefused, SliceRefused
from appliance.failpoint import failpoint
from appliance.intake.arrivals import ACTOR, index_arrivals, open_case
from appliance.intake.completion import check_count, count_sign, deciding_signs, short_words
from appliance.intake.limited_reading import LimitedReading
from appliance.intake.quiet import Quiet
from appliance.records import Database, Transaction, queries
from appliance.records.tables import Case, CaseState, CountSign, Instance, InstanceState
from appliance.settings import Settings
from appliance.settings.completion import CompletionRules
from appliance.spool import Spool

_MAY_STILL_COME = frozenset(
    {
        Reason.SLICE_MISSING,
        Reason.SLICE_GAPS_UNEVEN,
        Reason.TOO_FEW_SLICES,
        Reason.SERIES_INCOMPLETE,
        Reason.COUNT_UNKNOWN,
    }
)
"""Refusals that one more slice, or the PACS's answer, can cure."""

COUNT_AGAIN_S = 30.0
"""How often the PACS is asked again while a series waits for slices."""


class Assembler:
    """Indexes arrivals and examines the series that have been quiet long enough.

    Args:
        settings: of this box.
        database: the rows.
        spool: the objects.
        reading: reads what nobody has vouched for; whoever made it stops it.
        steady: seconds that never step back; silence is measured by them, never by the wall clock.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        spool: Spool,
        reading: LimitedReading,
        steady: Callable[[], float] = monotonic_s,
    ) -> None:
        self._settings = settings
        self._database = database
        self._spool = spool
        self._reading = reading
        self._quiet, self._answers, self._repeats = Quiet(steady), Quiet(steady), Quiet(steady)
        self._asked: dict[int, object] = {}  # case -> what it looked like when the PACS was last asked about it
        self._met: set[int] = set()  # open cases whose protocol has been looked for

    def sweep(self, now: datetime) -> int:
        """One round; returns how many objects it indexed, so that the caller knows whether to hurry on."""
        self._collect_notes(now)
        indexed = index_arrivals(self._database, self._spool, now, self._reading)
        waiting = self._spool.arrivals(1)
        waiting_age_s = (now - waiting[0].at).total_seconds() if waiting else None
        for silence in (self._quiet, self._answers, self._repeats):
            silence.round_begins(waiting_age_s)
        self._meet_new_cases()
        to_ask, to_examine = self._due()
        for case_id in to_ask:
            self._want_count(case_id, now)
        for case_id, quiet_s, waited in to_examine:
            self._examine(case_id, now, quiet_s, waited=waited)
        self._answer_repeats(now)
        return indexed

    def _collect_notes(self, now: datetime) -> None:
        """Turn what others noted without a database into audit events: the listener, and commands about models."""
        for note in self._spool.notes("audit"):
            with self._database.transaction() as tx:
                fields: dict[str, Any] = dict(note.fields)
                at = datetime.fromisoformat(fields.pop("at")) if "at" in fields else now
                trail.record(tx, fields.pop("event"), at=at, actor=fields.pop("actor", "listener"), **fields)
            note.path.unlink()

    def _meet_new_cases(self) -> None:
        """Find the protocol of a series by its first slice, so that its settings hold while it still receives."""
        with self._database.reading() as tx:
            still_open = queries.cases_in(tx, CaseState.RECEIVING, CaseState.INCOMPLETE)
            new = [case.id for case in still_open if case.foreseen_protocol is None and case.id not in self._met]
        for case_id in new:
            with self._database.transaction() as tx:
                case = queries.case_by_id(tx, case_id)
                instances = queries.instances_of(tx, case) if case is not None else []
                if case is None or not instances:
                    continue
                try:
                    first = self._reading.identity(self._spool.instance_path(instances[0].digest))
                    case.foreseen_protocol = choose_protocol(first, self._settings.protocols.values()).name
                except (Refused, OSError):
                    pass  # said in full once the series is quiet; until then the box's own settings hold
            self._met.add(case_id)

    def _due(self) -> tuple[list[int], list[tuple[int, float, bool]]]:
        """The cases whose count is wanted; and those to examine, how long each was quiet, and whether that was all.

        The PACS is asked half-way through the quiet time, so that its answer is there when it is needed.
        """
        to_ask: list[int] = []
        to_examine: list[tuple[int, float, bool]] = []
        with self._database.reading() as tx:
            cases = queries.cases_in(tx, CaseState.RECEIVING, CaseState.INCOMPLETE)
        self._forget_all_but(cases)
        for case in cases:
            rules = self._rules(case)
            quiet_s = self._quiet.unchanged_s(case.id, _looks(case))
            if self._is_to_be_asked(case, rules, quiet_s):
                to_ask.append(case.id)
            if case.forced_by is not None:
                to_examine.append((case.id, quiet_s, False))
            elif case.state is CaseState.INCOMPLETE:
                waited = quiet_s >= rules.incomplete_wait_s
                if waited or count_sign(case, case.slices) is not case.count_sign:
                    to_examine.append((case.id, quiet_s, waited))
            elif quiet_s >= rules.quiet_s:
                is_asked = case.id in to_ask or case.count_wanted_at is not None
                if not is_asked or quiet_s >= rules.quiet_s + rules.count_wait_s:
                    to_examine.append((case.id, quiet_s, False))
        return to_ask, to_examine

    def _forget_all_but(self, cases: Sequence[Case]) -> None:
        still_open = {case.id for case in cases}
        self._quiet.forget_others(still_open)
        self._answers.forget_others(still_open)
        self._asked = {case_id: looks for case_id, looks in self._asked.items() if case_id in still_open}
        self._met &= still_open

    def _rules(self, case: Case) -> CompletionRules:
        return self._settings.completion_rules(case.foreseen_protocol, case.source_ae)

    def _is_to_be_asked(self, case: Case, rules: CompletionRules, quiet_s: float) -> bool:
        if rules.peer is None or case.count_wanted_at is not None:
            return False
        if case.state is CaseState.INCOMPLETE:
            return self._answers.unchanged_s(case.id, case.count_asked_at) >= COUNT_AGAIN_S
        is_new = self._asked.get(case.id) != _looks(case)
        return is_new and quiet_s >= rules.quiet_s / 2 and count_sign(case, case.slices) is not CountSign.CONFIRMED

    def _want_count(self, case_id: int, now: datetime) -> None:
        with self._database.transaction() as tx:
            case = queries.case_by_id(tx, case_id)
            if case is not None and case.state in {CaseState.RECEIVING, CaseState.INCOMPLETE}:
                case.count_wanted_at = now
                self._asked[case_id] = _looks(case)

    def _examine(self, case_id: int, now: datetime, quiet_s: float, *, waited: bool) -> None:
        """Complete a series, let it wait for what is missing, or refuse it.

        Args:
            case_id: which.
            now: the time of the round.
            quiet_s: how long nothing new has come.
            waited: what was missing has been waited for long enough.
        """
        with self._database.transaction() as tx:
            case = queries.case_by_id(tx, case_id)
            if case is None or case.state not in {CaseState.RECEIVING, CaseState.INCOMPLETE}:
                return
            instances = list(queries.instances_of(tx, case))
            case.count_sign = count_sign(case, case.slices)
            try:
                self._complete(tx, case, instances, now, quiet_s)
            except Refused as refused:
                self._refuse_or_wait(tx, case, refused, now, waited=waited)
            except OSError as error:
                sentence = f"a slice in the spool cannot be read ({error.strerror}); mend the disk and send it again"
                self._refuse_or_wait(tx, case, SliceRefused(Reason.UNREADABLE, sentence), now, waited=waited)
            self._quiet.unchanged_s(case.id, _looks(case))  # what it waits for from now on, it waits for since now

    def _complete(self, tx: Transaction, case: Case, instances: list[Instance], now: datetime, quiet_s: float) -> None:
        slices = self._slices(instances)
        first = self._reading.identity(self._spool.instance_path(instances[0].digest))
        protocol = choose_protocol(first, self._settings.protocols.values())
        case.foreseen_protocol = protocol.name
        rules = self._rules(case)
        series = assemble_series(slices, uneven_gaps=protocol.uneven_gaps)
        extent_mm = float(series.geometry.gaps_mm.sum())
        if case.forced_by is None:
            check_count(case, case.slices, rules)
            told = {
                "slices": len(instances),
                "quiet_s": quiet_s,
                "extent_mm": extent_mm,
                "signs": deciding_signs(case, case.slices, rules),
                "count": case.count_sign,
                "expected": case.expected_slices,
            }
            move(tx, case, Move.COMPLETE, at=now, actor=ACTOR, **told)
        else:
            force_complete(tx, case, at=now, slices=len(instances), extent_mm=extent_mm)
        case.count_wanted_at = None
        case.protocol, case.model = protocol.name, ", ".join(protocol.models)
        chosen = {"protocol": protocol.name, "model": case.model}
        trail.record(tx, "protocol_chosen", at=now, actor=ACTOR, case_id=case.id, **chosen)
        failpoint("series_completed")

    def _slices(self, instances: list[Instance]) -> list[CtSlice]:
        if any(instance.state is InstanceState.CONFLICT for instance in instances):
            raise SeriesRefused(
                Reason.INSTANCE_CONFLICT,
                "a SOP Instance UID came with two different contents; find out at the sender which is right "
                "and send it as a new series",
            )
        return self._reading.slices([self._spool.instance_path(instance.digest) for instance in instances])

    def _refuse_or_wait(self, tx: Transaction, case: Case, refused: Refused, now: datetime, *, waited: bool) -> None:
        rules = self._rules(case)
        sentence = refused.sentence
        if case.count_sign is CountSign.SHORT and refused.reason is not Reason.SERIES_INCOMPLETE:
            sentence = f"{short_words(case, case.slices, rules)}; {sentence}"
        fields = {"reason": refused.reason, "sentence": sentence}
        if case.forced_by is not None:
            refuse_to_force(tx, case, at=now, actor=ACTOR, sentence=sentence)
        elif refused.reason not in _MAY_STILL_COME or waited:
            case.count_wanted_at = None
            move(tx, case, Move.REFUSE, at=now, actor=ACTOR, **fields)
        elif case.state is CaseState.RECEIVING:
            move(tx, case, Move.WAIT_FOR_SLICES, at=now, actor=ACTOR, wait_s=rules.incomplete_wait_s, **fields)
        else:  # it waits already; the PACS has said something else
            case.reason, case.sentence = refused.reason, sentence

    def _answer_repeats(self, now: datetime) -> None:
        """A finished series that came again: whoever sent it wants the answer again."""
        with self._database.reading() as tx:
            repeated = queries.cases_sent_again(tx)
        self._repeats.forget_others({case.id for case in repeated})
        for case_id in [case.id for case in repeated if self._has_been_quiet_again(case)]:
            with self._database.transaction() as tx:
                case = queries.case_by_id(tx, case_id)
                if case is not None:
                    self._answer_again(tx, case, now)

    def _has_been_quiet_again(self, case: Case) -> bool:
        return self._repeats.unchanged_s(case.id, case.repeated_at) >= self._rules(case).quiet_s

    def _answer_again(self, tx: Transaction, case: Case, now: datetime) -> None:
        case.repeated_at = None
        is_delivered = case.state in {CaseState.DELIVERED, CaseState.COMMITTED}
        if is_delivered and any(result.removed_at is not None for result in case.results):
            self._reconsider(tx, case, now)  # what was made is gone, its term being over: it is made anew
        elif is_delivered:
            move(tx, case, Move.REPEAT, at=now, actor=ACTOR)
            destinations = [delivery.destination for delivery in queries.deliveries_of(tx, case)]
            queries.put_in_outbox(tx, case, destinations, now)
        elif case.state in {CaseState.REFUSED, CaseState.FAILED} and not is_held_by_a_person(case):
            self._reconsider(tx, case, now)

    def _reconsider(self, tx: Transaction, case: Case, now: datetime) -> None:
        """A refused series that came again is looked at afresh: the configuration may have changed meanwhile."""
        first = queries.instances_of(tx, case)[0]
        opened = open_case(tx, case, self._reading.identity(self._spool.instance_path(first.digest)), now)
        self._quiet.unchanged_s(opened.id, _looks(opened))


def _looks(case: Case) -> tuple[object, ...]:
    """What changes when a slice comes, or when the case begins to wait."""
    return case.state, case.last_arrival_at, case.slices
