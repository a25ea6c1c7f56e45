"""The states of a case: which moves there are, that there are no others, and that each leaves its event."""

from datetime import timedelta
from itertools import product
from pathlib import Path
from string import Formatter
from typing import Any

import pytest

from appliance.audit import trail
from appliance.casework.case import FINAL, MOVES, Move, MoveNotAllowed, Role, Way, move
from appliance.records import Database
from appliance.records.tables import AuditEvent, Case, CaseState
from tests.support.rows import NOON, add_case, new_case, read_case

ARCHITECTURE = Path(__file__).parents[3] / "ARCHITECTURE.md"
LATER = NOON + timedelta(seconds=90)
FORBIDDEN = [pair for pair in product(CaseState, Move) if pair not in MOVES]
SECOND_THOUGHTS = {Move.COMMIT, Move.REPEAT, Move.MISS, Move.SUPERSEDE}
"""Moves that only somebody outside can bring about, as an operator's are: a late commitment, a sender, a late slice."""


def _facts(event: str) -> dict[str, Any]:
    """Something for every field that the event's words need."""
    parts = Formatter().parse(trail.EVENTS[event])
    return {name: 1.0 if spec and spec[-1] in "fg" else "something" for _, name, spec, _ in parts if name}


def test_every_state_can_be_reached_from_the_first() -> None:
    reached, grown = {CaseState.RECEIVING}, True
    while grown:
        more = {way.to for (state, _), way in MOVES.items() if state in reached}
        grown, reached = not more <= reached, reached | more
    assert reached == set(CaseState)


def test_every_move_is_used() -> None:
    assert {why for _, why in MOVES} == set(Move)


def test_only_unfinished_states_can_be_left_without_anybody_outside() -> None:
    by_itself = {
        state for (state, why), way in MOVES.items() if why not in SECOND_THOUGHTS and way.who != {Role.OPERATOR}
    }
    assert by_itself == set(CaseState) - FINAL


def test_the_printed_table_is_the_table_of_the_code() -> None:
    assert _printed_table(ARCHITECTURE.read_text(encoding="utf-8")) == {
        (state.value, why.value, way.to.value, ", ".join(sorted(way.who))) for (state, why), way in MOVES.items()
    }


def _printed_table(markdown: str) -> set[tuple[str, ...]]:
    """The rows of the Markdown table with the columns state, event, next state and who."""
    rows = [[cell.strip().strip("`") for cell in line.strip().strip("|").split("|")] for line in markdown.splitlines()]
    header = rows.index(["state", "event", "next state", "who"])
    table = set()
    for row in rows[header + 2 :]:
        if len(row) != 4:
            break
        table.add(tuple(row))
    return table


def test_every_role_has_moves_of_its_own() -> None:
    assert {role for way in MOVES.values() for role in way.who} == set(Role)


EVERY_MOVE = pytest.mark.parametrize(
    ("pair", "way"), MOVES.items(), ids=lambda one: str(one.to) if isinstance(one, Way) else "-".join(one)
)


@EVERY_MOVE
def test_a_move_changes_the_state_and_leaves_one_event(
    database: Database, pair: tuple[CaseState, Move], way: Way
) -> None:
    state, why = pair
    actor = f"{min(way.who)}-box-1"
    case_id = new_case(database, state)
    with database.transaction() as tx:
        case = tx.get(Case, case_id)
        assert case is not None
        move(tx, case, why, at=LATER, actor=actor, **_facts(why))
    with database.reading() as tx:
        event = tx.query(AuditEvent).one()
    after = read_case(database, case_id)
    assert (after.state, after.entered_state_at) == (way.to, LATER)
    assert (event.event, event.case_id, event.at, event.actor) == (why.value, case_id, LATER, actor)


@EVERY_MOVE
def test_nobody_makes_a_move_that_is_for_others(pair: tuple[CaseState, Move], way: Way) -> None:
    state, why = pair
    case = Case(id=7, state=state, entered_state_at=NOON)
    for actor in ("somebody", "", *(f"{role}:jane" for role in set(Role) - way.who)):
        with pytest.raises(MoveNotAllowed, match=f"case 7 is {state}: {why} is not for {actor} to say"):
            move(_untouchable(), case, why, at=LATER, actor=actor, **_facts(why))
    assert (case.state, case.entered_state_at) == (state, NOON)


@pytest.mark.parametrize(("state", "why"), FORBIDDEN)
def test_a_move_that_the_table_lacks_is_not_made(state: CaseState, why: Move) -> None:
    case = Case(id=7, state=state, entered_state_at=NOON)
    with pytest.raises(MoveNotAllowed, match=f"case 7 is {state}: {why} is not a move from there"):
        move(_untouchable(), case, why, at=LATER, actor="somebody", **_facts(why))
    assert (case.state, case.entered_state_at) == (state, NOON)


def _untouchable() -> Any:
    """A transaction that nothing may be done with."""
    return object()


def test_a_refusal_leaves_its_reason_and_sentence_on_the_row(database: Database) -> None:
    case_id = new_case(database, CaseState.RECEIVING)
    with database.transaction() as tx:
        case = tx.get(Case, case_id)
        assert case is not None
        fields = {"reason": "slice_missing", "sentence": "a gap of 6 mm"}
        move(tx, case, Move.REFUSE, at=NOON, actor="assembler", **fields)
    after = read_case(database, case_id)
    assert (after.reason, after.sentence) == ("slice_missing", "a gap of 6 mm")


def test_the_next_move_clears_reason_and_sentence(database: Database) -> None:
    case_id = new_case(database, CaseState.INCOMPLETE, reason="slice_missing", sentence="a gap of 6 mm")
    with database.transaction() as tx:
        case = tx.get(Case, case_id)
        assert case is not None
        move(tx, case, Move.RECEIVE_MORE, at=NOON, actor="assembler", count=1, total=11)
    after = read_case(database, case_id)
    assert (after.reason, after.sentence) == (None, None)


@pytest.mark.parametrize("why", [why for state, why in MOVES if state is CaseState.SEGMENTING])
def test_whoever_leaves_the_work_leaves_the_lease(database: Database, why: Move) -> None:
    case_id = new_case(database, CaseState.SEGMENTING, lease_owner="worker-1", lease_until=LATER)
    with database.transaction() as tx:
        case = tx.get(Case, case_id)
        assert case is not None
        move(tx, case, why, at=NOON, actor=min(MOVES[CaseState.SEGMENTING, why].who), **_facts(why))
    after = read_case(database, case_id)
    assert (after.lease_owner, after.lease_until) == (None, None)


def test_a_move_without_its_facts_changes_nothing(database: Database) -> None:
    with database.transaction() as tx:
        case_id = add_case(tx, CaseState.RECEIVING).id
    with pytest.raises(KeyError), database.transaction() as tx:
        case = tx.get(Case, case_id)
        assert case is not None
        move(tx, case, Move.REFUSE, at=NOON, actor="assembler", reason="slice_missing")
    assert read_case(database, case_id).state is CaseState.RECEIVING
