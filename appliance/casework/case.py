"""The states of a case, the moves between them, and the one function that moves a case.

`MOVES` is the whole table; ARCHITECTURE.md prints it and a test holds the two together. The row, its audit event
and whatever else belongs to the move are written in one transaction by the caller.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

from appliance.audit import trail
from appliance.errors import ApplianceError
from appliance.records import Transaction
from appliance.records.tables import Case, CaseState


class Move(StrEnum):
    """Why a case changes its state; each is also the name of an audit event."""

    WAIT_FOR_SLICES = "series_incomplete"
    RECEIVE_MORE = "slices_received"
    COMPLETE = "series_complete"
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
    RETRY = "case_requeued"
    SUPERSEDE = "case_superseded"


_S = CaseState

MOVES: dict[tuple[CaseState, Move], CaseState] = {
    (_S.RECEIVING, Move.WAIT_FOR_SLICES): _S.INCOMPLETE,
    (_S.RECEIVING, Move.COMPLETE): _S.QUEUED,
    (_S.RECEIVING, Move.REFUSE): _S.REFUSED,
    (_S.INCOMPLETE, Move.RECEIVE_MORE): _S.RECEIVING,
    (_S.INCOMPLETE, Move.COMPLETE): _S.QUEUED,
    (_S.INCOMPLETE, Move.REFUSE): _S.REFUSED,
    (_S.QUEUED, Move.START): _S.SEGMENTING,
    (_S.QUEUED, Move.SUPERSEDE): _S.SUPERSEDED,
    (_S.SEGMENTING, Move.FINISH): _S.SENDING,
    (_S.SEGMENTING, Move.REFUSE): _S.REFUSED,
    (_S.SEGMENTING, Move.LOSE): _S.QUEUED,
    (_S.SEGMENTING, Move.FAIL): _S.FAILED,
    (_S.SEGMENTING, Move.SUPERSEDE): _S.SUPERSEDED,
    (_S.SENDING, Move.DELIVER): _S.DELIVERED,
    (_S.SENDING, Move.FAIL): _S.FAILED,
    (_S.SENDING, Move.REMAKE): _S.QUEUED,
    (_S.SENDING, Move.SUPERSEDE): _S.SUPERSEDED,
    (_S.DELIVERED, Move.COMMIT): _S.COMMITTED,
    (_S.DELIVERED, Move.REPEAT): _S.SENDING,
    (_S.COMMITTED, Move.REPEAT): _S.SENDING,
    (_S.DELIVERED, Move.MISS): _S.SENDING,
    (_S.COMMITTED, Move.MISS): _S.SENDING,
    (_S.FAILED, Move.RETRY): _S.QUEUED,
}

FINAL = frozenset({_S.DELIVERED, _S.COMMITTED, _S.REFUSED, _S.FAILED, _S.SUPERSEDED})
"""States in which the appliance has nothing left to do by itself, but for a commitment that may still come."""


class MoveNotAllowed(ApplianceError):
    """A case was asked to make a move that its state does not have; the code that asked is wrong."""


def move(tx: Transaction, case: Case, why: Move, *, at: datetime, actor: str, **fields: Any) -> None:
    """Move `case` on and write the audit event, both in the caller's transaction.

    A refusal or a failure leaves its reason and sentence on the row; any other move clears them, except that
    waiting for slices keeps its sentence.

    Raises:
        MoveNotAllowed: `MOVES` has no such move from the case's state.
    """
    target = MOVES.get((case.state, why))
    if target is None:
        raise MoveNotAllowed(f"case {case.id} is {case.state}: {why} is not a move from there")
    case.state = target
    case.entered_state_at = at
    case.reason = fields.get("reason")
    case.sentence = fields.get("sentence")
    if target is not _S.SEGMENTING:
        case.lease_owner = case.lease_until = None
    trail.record(tx, why, at=at, actor=actor, case_id=case.id, **fields)


def retry(tx: Transaction, case: Case, *, at: datetime, actor: str) -> None:
    """Queue a parked case again with all its attempts before it, because a person said so.

    Raises:
        MoveNotAllowed: the case is not parked.
    """
    if case.state is not CaseState.FAILED:
        raise MoveNotAllowed(
            f"case {case.id} is {case.state}; only a case that is {CaseState.FAILED} can be tried again"
        )
    move(tx, case, Move.RETRY, at=at, actor=actor, sentence="tried again by an operator")
    case.attempts, case.rung_at = 0, None
