"""The bars of a long piece of work, as a terminal and as a log file show them."""

from io import StringIO

import pytest
from rich.console import Console

from appliance.running.step_bars import StepBars


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_terminal_gets_bars_by_their_words_and_a_log_file_no_clutter(*, is_terminal: bool) -> None:
    screen = StringIO()
    with StepBars(Console(file=screen, force_terminal=is_terminal, width=100), {"read": "Slices read"}) as bars:
        for done in range(1, 51):
            bars("read", done, 50)
            bars("fold 1", done, 100)
    shown = screen.getvalue()
    assert ("Slices read" in shown) == is_terminal
    assert ("50/50" in shown) == is_terminal
    assert ("fold 1" in shown) == is_terminal
