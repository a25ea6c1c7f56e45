"""A process that dies at any step: from then on nothing that it does reaches the disk."""

import os
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

_CHANGES = ("rename", "unlink", "mkdir", "rmdir", "fsync", "write")


class Died(BaseException):
    """Nothing of the program's own catches this."""


def killed_in(work: Callable[[], object]) -> None:
    """Run `work` in a process of its own, where a trap kills it; it leaves what it left."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the trap did not spring"


def deaths_of(work: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Run `work` again and again; yields after it died before its first change of the disk, its second, and so on.

    Ends after the run that was allowed to finish. Whoever iterates puts the disk back in between.
    """
    for lives in count():
        finished = _run(work, monkeypatch, lives)
        yield lives
        if finished:
            return


def _run(work: Callable[[], object], monkeypatch: pytest.MonkeyPatch, lives: int) -> bool:
    left = lives

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def change(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            if left == 0:
                raise Died
            left -= 1
            return real(*arguments, **named)

        return change

    with monkeypatch.context() as patched:
        for name in _CHANGES:
            patched.setattr(os, name, dying(getattr(os, name)))
        try:
            work()
        except Died:
            return False
    return True
