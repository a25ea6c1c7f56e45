"""The states of a case, the moves between them, who may make each, and the one function that moves a case.

`MOVES` is the whole table; ARCHITECTURE.md prints it and a test holds the two together. The row, its audit event
and whatever else belongs to the move are written in one transaction by the caller.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from appliance.audit import trail
from appliance.errors import ApplianceError
from appliance.records import Transaction
from appliance.records.tables import Case, CaseState


class Move(StrEnum):
    """Why a case changes its state; each is also the name of an audit event."""

    WAIT_FOR_SLICES = "series_incomplete"
    RECEIVE_MORE = "slices_received"
    COMPLETE = "series_complete"
    FORCE_COMPLETE = "completion_forced"
    REFUSE = "case_refused"
    START = "work_started"
    LOSE = "work_lost"
    FAIL = "case_failed"
    FINISH = "structure_set_written"
    DELIVER = "case_delivered"
    COMMIT = "case_committed"
    REPEAT = "delivery_repeated"
    MISS = "result_missing"
    REMAKE = "result_damaged"
    PARK = "case_parked"
    CANCEL = "case_cancelled"
    RETRY = "case_requeued"
    RESUME_RECEIVING = "receiving_resumed"
    RESUME_SENDING = "sending_resumed"
    SUPERSEDE = "case_superseded"


class Role(StrEnum):
    """Who moves cases. The actor of an event begins with its role: `worker-box-4711`, `operator:jane`."""

    ASSEMBLER = "assembler"
    WORKER = "worker"
    RECONCILER = "reconciler"
    DELIVERER = "deliverer"
    OPERATOR = "operator"


class Way(NamedTuple):
    """Where a move leads, and who may make it."""

    to: CaseState
    who: frozenset[Role]


def _way(to: CaseState, *who: Role) -> Way:
    return Way(to, frozenset(who))


_S = CaseState
_ASSEMBLER, _WORKER, _RECONCILER, _DELIVERER, _OPERATOR = Role

MOVES: dict[tuple[CaseState, Move], Way] = {
    (_S.RECEIVING, Move.WAIT_FOR_SLICES): _way(_S.INCOMPLETE, _ASSEMBLER),
    (_S.RECEIVING, Move.COMPLETE): _way(_S.QUEUED, _ASSEMBLER),
    (_S.RECEIVING, Move.FORCE_COMPLETE): _way(_S.QUEUED, _OPERATOR),
    (_S.RECEIVING, Move.REFUSE): _way(_S.REFUSED, _ASSEMBLER),
    (_S.RECEIVING, Move.PARK): _way(_S.FAILED, _OPERATOR),
    (_S.RECEIVING, Move.CANCEL): _way(_S.CANCELLED, _OPERATOR),
    (_S.INCOMPLETE, Move.RECEIVE_MORE): _way(_S.RECEIVING, _ASSEMBLER),
    (_S.INCOMPLETE, Move.COMPLETE): _way(_S.QUEUED, _ASSEMBLER),
    (_S.INCOMPLETE, Move.FORCE_COMPLETE): _way(_S.QUEUED, _OPERATOR),
    (_S.INCOMPLETE, Move.REFUSE): _way(_S.REFUSED, _ASSEMBLER),
    (_S.INCOMPLETE, Move.PARK): _way(_S.FAILED, _OPERATOR),
    (_S.INCOMPLETE, Move.CANCEL): _way(_S.CANCELLED, _OPERATOR),
    (_S.QUEUED, Move.START): _way(_S.SEGMENTING, _WORKER),
    (_S.QUEUED, Move.SUPERSEDE): _way(_S.SUPERSEDED, _ASSEMBLER),
    (_S.QUEUED, Move.PARK): _way(_S.FAILED, _OPERATOR),
    (_S.QUEUED, Move.CANCEL): _way(_S.CANCELLED, _OPERATOR),
    (_S.SEGMENTING, Move.FINISH): _way(_S.SENDING, _WORKER),
    (_S.SEGMENTING, Move.REFUSE): _way(_S.REFUSED, _WORKER),
    (_S.SEGMENTING, Move.LOSE): _way(_S.QUEUED, _WORKER, _RECONCILER),
    (_S.SEGMENTING, Move.FAIL): _way(_S.FAILED, _WORKER, _RECONCILER),
    (_S.SEGMENTING, Move.SUPERSEDE): _way(_S.SUPERSEDED, _ASSEMBLER),
    (_S.SEGMENTING, Move.PARK): _way(_S.FAILED, _OPERATOR),
    (_S.SEGMENTING, Move.CANCEL): _way(_S.CANCELLED, _OPERATOR),
    (_S.SENDING, Move.DELIVER): _way(_S.DELIVERED, _DELIVERER),
    (_S.SENDING, Move.FAIL): _way(_S.FAILED, _DELIVERER),
    (_S.SENDING, Move.SUPERSEDE): _way(_S.SUPERSEDED, _ASSEMBLER),
    (_S.SENDING, Move.REMAKE): _way(_S.QUEUED, _DELIVERER),
    (_S.SENDING, Move.PARK): _way(_S.FAILED, _OPERATOR),
    (_S.SENDING, Move.CANCEL): _way(_S.CANCELLED, _OPERATOR),
    (_S.DELIVERED, Move.SUPERSEDE): _way(_S.SUPERSEDED, _DELIVERER),
    (_S.COMMITTED, Move.SUPERSEDE): _way(_S.SUPERSEDED, _DELIVERER),
    (_S.DELIVERED, Move.COMMIT): _way(_S.COMMITTED, _DELIVERER),
    (_S.DELIVERED, Move.REPEAT): _way(_S.SENDING, _ASSEMBLER),
    (_S.COMMITTED, Move.REPEAT): _way(_S.SENDING, _ASSEMBLER),
    (_S.DELIVERED, Move.MISS): _way(_S.SENDING, _DELIVERER),
    (_S.COMMITTED, Move.MISS): _way(_S.SENDING, _DELIVERER),
    (_S.FAILED, Move.RETRY): _way(_S.QUEUED, _OPERATOR),
    (_S.FAILED, Move.RESUME_RECEIVING): _way(_S.RECEIVING, _OPERATOR),
    (_S.FAILED, Move.RESUME_SENDING): _way(_S.SENDING, _OPERATOR),
    (_S.FAILED, Move.CANCEL): _way(_S.CANCELLED, _OPERATOR),
    (_S.CANCELLED, Move.RETRY): _way(_S.QUEUED, _OPERATOR),
    (_S.CANCELLED, Move.RESUME_RECEIVING): _way(_S.RECEIVING, _OPERATOR),
    (_S.CANCELLED, Move.RESUME_SENDING): _way(_S.SENDING, _OPERATOR),
}

FINAL = frozenset({_S.DELIVERED, _S.COMMITTED, _S.REFUSED, _S.FAILED, _S.CANCELLED, _S.SUPERSEDED})
"""States in which the appliance has nothing left to do by itself, but for a commitment that may still come."""


class MoveNotAllowed(ApplianceError):
    """A case was asked to make a move that its state or the actor's role does not have."""


def move(tx: Transaction, case: Case, why: Move, *, at: datetime, actor: str, **fields: Any) -> None:
    """Move `case` on and write the audit event, both in the caller's transaction.

    A refusal or a failure leaves its reason and sentence on the row; any other move clears them, except that
    waiting for slices keeps its sentence.

    Raises:
        MoveNotAllowed: `MOVES` has no such move from the case's state, or not for this actor.
    """
    way = MOVES.get((case.state, why))
    if way is None:
        raise MoveNotAllowed(f"case {case.id} is {case.state}: {why} is not a move from there")
    if role_of(actor) not in way.who:
        raise MoveNotAllowed(f"case {case.id} is {case.state}: {why} is not for {actor} to say")
    case.state = way.to
    case.entered_state_at = at
    case.reason = fields.get("reason")
    case.sentence = fields.get("sentence")
    if way.to is not _S.SEGMENTING:
        case.lease_owner = case.lease_until = None
    trail.record(tx, why, at=at, actor=actor, case_id=case.id, **fields)


def role_of(actor: str) -> Role | None:
    """The role that an actor's name begins with; None when it is none that moves cases."""
    word = actor.partition(":")[0].partition("-")[0]
    return Role(word) if word in {role.value for role in Role} else None
