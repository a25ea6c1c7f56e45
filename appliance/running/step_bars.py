"""How far a long piece of work is: bars where there is a terminal, a line now and then where there is none."""

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from appliance.clock import monotonic_s
from appliance.segmentation.pace import in_words, time_left_s

_SPEAK_EVERY_S = 5.0


class StepBars:
    """One bar for each step, with the time that is left of it; use it as a context.

    Args:
        console: where to show them.
        words: what each step is called; others go by their own name.
    """

    def __init__(self, console: Console, words: Mapping[str, str]) -> None:
        self._console, self._words = console, words
        columns = (
            TextColumn("{task.description:<26}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._bars: dict[str, TaskID] = {}
        self._began_s: dict[str, float] = {}
        self._spoke_s = monotonic_s()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, step: str, done: int, total: int) -> None:
        """Say how far a step is."""
        now_s = monotonic_s()
        words = self._words.get(step, step)
        left_s = time_left_s(done, total, now_s - self._began_s.setdefault(step, now_s))
        left = f"about {in_words(left_s)} left" if left_s else ""
        if not self._console.is_terminal:
            if 0 < done < total and now_s - self._spoke_s > _SPEAK_EVERY_S:
                self._spoke_s = now_s
                self._console.print(f"{words}: {done} of {total}" + (f", {left}" if left else ""), soft_wrap=True)
            return
        if step not in self._bars:
            self._bars[step] = self._progress.add_task(words, total=total, left="")
        self._progress.update(self._bars[step], completed=done, total=total, left=left)
