"""The vocabulary of the trail against the code: nothing is recorded that has no words, and no words are idle."""

import ast
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import pytest

import appliance
from appliance.audit.trail import EVENTS
from appliance.casework.case import Move

CODE = Path(appliance.__file__).parent
RECORDERS = {
    "record",
    "_record",
    "_remember",
    "_note",
    "note_event",
    "move",
    "send_again",
    "report",
    "_write_note",
    "tell",
}
"""Functions whose second argument is an event; notes of the listener become events too, with it as the first."""


def _functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    for path in CODE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                yield f"{path.relative_to(CODE)}:{node.name}", node


def _recorded() -> Iterator[tuple[str, str, set[str]]]:
    """Where, which event, and every field name that the function around it could be handing over."""
    for where, function in _functions():
        fields = _field_names(function)
        for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            if name in RECORDERS:
                own = {keyword.arg for keyword in call.keywords if keyword.arg}
                for event in _events(call, function):
                    yield where, event, own | fields


def _events(call: ast.Call, function: ast.FunctionDef) -> Iterator[str]:
    for argument in call.args[:3]:
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            yield argument.value
        elif isinstance(argument, ast.Attribute) and getattr(argument.value, "id", "") == "Move":
            yield Move[argument.attr].value
        elif isinstance(argument, ast.Name) and argument.id == "event":
            yield from _assigned(function)


def _assigned(function: ast.FunctionDef) -> Iterator[str]:
    """Texts given to a variable called `event`, alone or in a tuple."""
    for node in ast.walk(function):
        if not isinstance(node, ast.Assign):
            continue
        target, value = node.targets[0], node.value
        pairs = (
            zip(target.elts, value.elts, strict=False)
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
            else [(target, value)]
        )
        for name, given in pairs:
            if getattr(name, "id", "") == "event" and isinstance(given, ast.Constant):
                yield str(given.value)


def _field_names(function: ast.FunctionDef) -> set[str]:
    names = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Dict):
            names |= {key.value for key in node.keys if isinstance(key, ast.Constant)}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "fields":
            names |= {"seconds", "cpu_s"}  # clock.Effort
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in {"what_and_where", "send_again"}:
            names |= {"object", "destination", "sentence"}  # delivery/settling.py
    return names


def test_every_recorded_event_is_in_the_vocabulary() -> None:
    recorded = list(_recorded())
    assert len(recorded) > len(EVENTS) / 2, "the search finds what it looks for"
    assert [(where, event) for where, event, _ in recorded if event not in EVENTS] == []


def test_every_event_is_recorded_with_the_facts_that_its_words_need() -> None:
    missing = [
        (where, event, needed - given)
        for where, event, given in _recorded()
        if not (needed := {field for _, field, _, _ in Formatter().parse(EVENTS[event]) if field}) <= given
    ]
    assert missing == []


def test_every_event_of_the_vocabulary_is_recorded_somewhere() -> None:
    assert set(EVENTS) - {event for _, event, _ in _recorded()} == set()


@pytest.mark.parametrize("event", EVENTS)
def test_no_event_tells_who_the_patient_is(event: str) -> None:
    assert not any(word in EVENTS[event] for word in ("patient", "birth", "accession"))


def test_every_move_of_a_case_is_an_event() -> None:
    assert {move.value for move in Move} <= EVENTS.keys()
