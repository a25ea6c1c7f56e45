"""What an operator may do with a case: try it again, park it, cancel it, take its series as complete.

Each checks whether the state allows it, moves the case and leaves who did it and why. A worker that holds the case
notices at its next progress. What was parked or cancelled goes on, when it is tried again, where it stood.
"""

from dataclasses import dataclass
from datetime import datetime

from appliance.audit import trail
from appliance.casework.case import MOVES, Move, MoveNotAllowed, Role, move
from appliance.errors import Reason
from appliance.records import Transaction, queries
from appliance.records.tables import Case, CaseState, DeliveryState

_STOPPED = frozenset({CaseState.FAILED, CaseState.CANCELLED})
_COLLECTING = frozenset({CaseState.RECEIVING, CaseState.INCOMPLETE})
_UNSENT = frozenset({DeliveryState.PENDING, DeliveryState.REFUSED})
NO_REASON = "no reason given"
BY_A_PERSON = frozenset({Reason.PARKED_BY_OPERATOR.value, Reason.CANCELLED_BY_OPERATOR.value})
"""Reasons of cases that stand still because a person wants it: only a person lets them go on."""


@dataclass(frozen=True, slots=True)
class Operator:
    """A person who acts on a case.

    Attributes:
        name: of the account on this machine.
        at: when.
        why: in the person's own words; may be empty. No patient's name belongs here.
    """

    name: str
    at: datetime
    why: str = ""

    @property
    def actor(self) -> str:
        """Who, for the trail."""
        return f"{Role.OPERATOR}:{self.name}"[:40]

    def said(self, otherwise: str) -> str:
        """The person's words, or `otherwise` where there are none."""
        return self.why or otherwise


def retry(tx: Transaction, case: Case, who: Operator) -> CaseState:
    """Let a parked or cancelled case go on where it stood, with all its attempts before it; returns its new state.

    Raises:
        MoveNotAllowed: the case is neither, or a later revision of its series has taken its place.
    """
    if case.state not in _STOPPED:
        raise MoveNotAllowed(
            f"case {case.id} is {case.state}; only a case that is {CaseState.FAILED} can be tried again, "
            f"or one that was {CaseState.CANCELLED}{_instead(case)}"
        )
    latest = queries.latest_case(tx, case.series_instance_uid)
    if latest is not None and latest.revision > case.revision:
        raise MoveNotAllowed(f"case {case.id} has a later revision, case {latest.id}; act on that one")
    sentence = who.said("tried again by an operator")
    if case.results:
        move(tx, case, Move.RESUME_SENDING, at=who.at, actor=who.actor, sentence=sentence)
        _make_due(tx, case, who.at)
    elif case.protocol is not None:
        move(tx, case, Move.RETRY, at=who.at, actor=who.actor, sentence=sentence)
        case.rung_at = None
    else:
        move(tx, case, Move.RESUME_RECEIVING, at=who.at, actor=who.actor, sentence=sentence)
    case.attempts, case.sentence = 0, None
    return case.state


def park(tx: Transaction, case: Case, who: Operator) -> None:
    """Stop a case until somebody tries it again.

    Raises:
        MoveNotAllowed: nothing happens with the case any more.
    """
    _refuse_if_over(case, Move.PARK, "parked")
    fields = {"by": who.name, "reason": Reason.PARKED_BY_OPERATOR, "sentence": who.said(NO_REASON)}
    move(tx, case, Move.PARK, at=who.at, actor=who.actor, **fields)
    case.forced_by = case.forced_why = None


def cancel(tx: Transaction, case: Case, who: Operator) -> None:
    """End a case without a result; what it has is kept, and it can be tried again.

    Raises:
        MoveNotAllowed: it has ended already.
    """
    _refuse_if_over(case, Move.CANCEL, "cancelled")
    fields = {"by": who.name, "reason": Reason.CANCELLED_BY_OPERATOR, "sentence": who.said(NO_REASON)}
    move(tx, case, Move.CANCEL, at=who.at, actor=who.actor, **fields)
    case.forced_by = case.forced_why = None


def ask_to_complete(tx: Transaction, case: Case, who: Operator) -> None:
    """Ask that a series be taken as complete though a sign of it is missing; the assembler sees to it at once.

    It does so if the geometry allows it, and says in the trail why not otherwise.

    Raises:
        MoveNotAllowed: the case waits for no more slices.
    """
    if case.state not in _COLLECTING:
        raise MoveNotAllowed(
            f"case {case.id} is {case.state}; only a case that is {CaseState.RECEIVING} or {CaseState.INCOMPLETE} "
            "can be taken as complete"
        )
    case.forced_by, case.forced_why = who.actor, who.said(NO_REASON)
    fields = {"by": who.name, "sentence": case.forced_why}
    trail.record(tx, "completion_asked", at=who.at, actor=who.actor, case_id=case.id, **fields)


def force_complete(tx: Transaction, case: Case, *, at: datetime, slices: int, extent_mm: float) -> None:
    """Take a series as complete because somebody asked for it; its geometry has been found good."""
    actor, because = case.forced_by or "", case.forced_why
    by = actor.partition(":")[2]
    fields = {"by": by, "asked_because": because, "slices": slices, "extent_mm": extent_mm}
    move(tx, case, Move.FORCE_COMPLETE, at=at, actor=actor, **fields)
    case.forced_by = case.forced_why = None


def refuse_to_force(tx: Transaction, case: Case, *, at: datetime, actor: str, sentence: str) -> None:
    """Say why a series cannot be taken as complete; the case waits on as it did."""
    fields = {"by": (case.forced_by or "").partition(":")[2], "sentence": sentence}
    trail.record(tx, "completion_not_forced", at=at, actor=actor, case_id=case.id, **fields)
    case.forced_by = case.forced_why = None


def is_held_by_a_person(case: Case) -> bool:
    """Whether a person parked or cancelled the case: then it goes on when a person says so, and not before."""
    return case.state in _STOPPED and case.reason in BY_A_PERSON


def still_collects(case: Case) -> bool:
    """Whether slices that come belong to this revision although it stands still: it was stopped while it received."""
    return is_held_by_a_person(case) and case.protocol is None


def _refuse_if_over(case: Case, why: Move, verb: str) -> None:
    if (case.state, why) not in MOVES:
        raise MoveNotAllowed(f"case {case.id} is {case.state}; there is nothing left that could be {verb}")


def _make_due(tx: Transaction, case: Case, now: datetime) -> None:
    """Whatever a destination has not taken is sent now; everything, if all was taken while the case stood still."""
    deliveries = queries.deliveries_of(tx, case)
    for delivery in [one for one in deliveries if one.state in _UNSENT] or deliveries:
        delivery.state, delivery.next_try_at, delivery.attempts = DeliveryState.PENDING, now, 0
        delivery.sentence = None


def _instead(case: Case) -> str:
    """What helps a case that cannot be tried again."""
    if case.state is CaseState.REFUSED:
        return "; mend what its reason says and send the series again, which opens a new revision"
    if case.state in {CaseState.DELIVERED, CaseState.COMMITTED}:
        return "; to have its result sent once more, send the series again"
    return ""
