"""The demo's screen: progress bars where there is a terminal, plain lines where there is none; never long silence."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, ClassVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from appliance.clock import monotonic_s
from appliance.errors import ApplianceError
from appliance.records.tables import Case, CaseState
from appliance.running import showing
from appliance.settings import Settings

_STEPS = {
    "read": "Slice headers read",
    "load": "Slices decoded",
    "engines": "Engines tried",
    "structures": "Structures decided",
    "contours": "Structures traced as contours",
}
_SPEAK_EVERY_S = 2.0
"""Without a terminal, a bar becomes a line at least this often."""


class Screen:
    """Says what happens, with the time since the start in front."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began_s = monotonic_s()

    def say(self, words: str) -> None:
        """One line."""
        self._console.print(f"[dim]{monotonic_s() - self._began_s:5.1f} s[/]  {words}", soft_wrap=True)

    def wait_for(self, is_so: Callable[[], bool], what: str, give_up_s: float) -> None:
        """Wait until `is_so`, saying so now and then.

        Raises:
            ApplianceError: it did not come about in time.
        """
        began_s = spoke_s = monotonic_s()
        while not is_so():
            if monotonic_s() - began_s > give_up_s:
                raise ApplianceError(f"waited {give_up_s:.0f} s in vain for {what}")
            if monotonic_s() - spoke_s > _SPEAK_EVERY_S:
                spoke_s = monotonic_s()
                self.say(f"waiting for {what}")
            time.sleep(0.2)

    @contextmanager
    def bar(self, words: str, total: int) -> Iterator[Callable[[int], None]]:
        """A progress bar; the caller says how many are done."""
        line = _Line(self, words)
        with self._progress() as progress:
            task = progress.add_task(words, total=total, left="")

            def advance(done: int) -> None:
                progress.update(task, completed=done)
                if not self._console.is_terminal:
                    line.show(f"{done} of {total}", finished=done == total)

            yield advance

    @contextmanager
    def following(self, sent: int) -> Iterator[Callable[[Case | None, Settings, datetime], None]]:
        """Follow one case through its states: a line for each state, a bar for what is countable within it."""
        with self._progress() as progress:
            yield _Follower(self, progress, sent, terminal=self._console.is_terminal)

    def _progress(self) -> Progress:
        columns = (
            TextColumn("         {task.description:<34}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        return Progress(*columns, console=self._console, disable=not self._console.is_terminal)


class _Line:
    """A bar's stand-in without a terminal."""

    def __init__(self, screen: Screen, words: str) -> None:
        self._screen, self._words, self._spoke_s = screen, words, 0.0
        self.finished = False

    def show(self, state: str, *, finished: bool) -> None:
        if not self.finished and (finished or monotonic_s() - self._spoke_s > _SPEAK_EVERY_S):
            self._spoke_s = monotonic_s()
            self._screen.say(f"{self._words}: {state}")
        self.finished = self.finished or finished


class _Follower:
    """Turns what a case's row says into lines and bars."""

    _WORDS: ClassVar = {
        CaseState.QUEUED: "Series complete and matched to a protocol; queued for a worker",
        CaseState.SEGMENTING: "A worker has the case",
        CaseState.SENDING: "Structure set written and checked; sending it to the PACS",
        CaseState.DELIVERED: "RTSTRUCT accepted by the PACS; asked it for storage commitment",
        CaseState.COMMITTED: "RTSTRUCT committed: the PACS has promised to keep it",
    }

    def __init__(self, screen: Screen, progress: Progress, sent: int, *, terminal: bool) -> None:
        self._screen, self._progress, self._sent, self._terminal = screen, progress, sent, terminal
        self._state: CaseState | None = None
        self._bars: dict[str, TaskID] = {}
        self._lines: dict[str, _Line] = {}

    def __call__(self, case: Case | None, settings: Settings, now: datetime) -> None:
        if case is None:
            self._step("Slices indexed", 0, self._sent)
            return
        if case.state is CaseState.RECEIVING:
            self._step("Slices indexed", case.slices, self._sent)
            if case.slices >= self._sent:
                quiet_s = settings.completion_rules(case.foreseen_protocol, case.source_ae).quiet_s
                self._step(
                    'Quiet time to "series complete", s',
                    round(quiet_s - showing.countdown_s(case, settings, now)),
                    round(quiet_s),
                )
        if case.state is not self._state:
            self._enter(case)
        if case.state is CaseState.SEGMENTING and case.progress:
            self._work(case.progress)

    def _work(self, progress: dict[str, Any]) -> None:
        """One bar for a step; while networks run, one for each fold of each model."""
        models = progress.get("models", [])
        for model in models:
            of = "the ensemble" if len(models) == 1 else model["model"]
            left = showing.left_words(model)
            for number, tiles in enumerate(model.get("folds", []), 1):
                self._step(f"Fold {number} of {of}, tiles", tiles, model["total"] // len(model["folds"]), left)
        if not models:
            self._step(_STEPS.get(progress["step"], progress["step"]), progress["done"], progress["total"])

    def _enter(self, case: Case) -> None:
        if self._state is CaseState.RECEIVING:
            self._step("Slices indexed", case.slices, self._sent)
        self._state = case.state
        if case.state in self._WORDS:
            self._screen.say(self._WORDS[case.state])
        elif case.sentence:
            self._screen.say(f"{case.state}: {case.sentence}")

    def _step(self, words: str, done: int, total: int, left: str = "") -> None:
        if not self._terminal:
            line = self._lines.setdefault(words, _Line(self._screen, words))
            line.show(f"{done} of {total}{left}", finished=done == total and not line.finished)
            return
        if words not in self._bars:
            if not words.startswith("Fold"):
                self._fill_bars()
            self._bars[words] = self._progress.add_task(words, total=total, left=left)
        self._progress.update(self._bars[words], completed=done, total=total, left=left)

    def _fill_bars(self) -> None:
        """A new step means that those before it are done, even if nobody looked at their end."""
        for task in self._progress.tasks:
            self._progress.update(task.id, completed=task.total)
