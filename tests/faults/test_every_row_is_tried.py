"""No row is forgotten: each of F1 to F30 is carried by a test."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support.evidence import ROWS

HERE = Path(__file__).parent
PROMISES = {"never lose", "never twice", "never wrong", "never silent", "never stuck"}


def _marks() -> Iterator[tuple[str, list[object]]]:
    """The file and the arguments of every `pytest.mark.fault`."""
    for path in sorted([*HERE.glob("test_*.py"), *(HERE.parent / "security").glob("test_*.py")]):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.fault":
                yield path.name, [ast.literal_eval(argument) for argument in node.args]


def test_every_row_has_a_test_that_carries_it() -> None:
    carried = {arguments[0] for _, arguments in _marks()}
    assert [f"{row}: {words}" for row, words in ROWS.items() if row not in carried] == []


def test_every_mark_names_a_promise_of_the_five() -> None:
    odd = [(file, arguments) for file, arguments in _marks() if len(arguments) != 2 or arguments[1] not in PROMISES]
    assert odd == []
