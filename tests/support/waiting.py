"""Waiting for something that another process or thread does."""

import time
from collections.abc import Callable
from typing import TypeVar

_Value = TypeVar("_Value")
_LOOK_EVERY_S = 0.05


def wait_until(look: Callable[[], _Value], timeout_s: float, what: str) -> _Value:
    """The first truthy answer of `look`.

    Raises:
        AssertionError: there was none in time.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        answer = look()
        if answer:
            return answer
        if time.monotonic() > deadline_s:
            raise AssertionError(f"waited {timeout_s:g} s in vain for {what}; the last answer was {answer!r}")
        time.sleep(_LOOK_EVERY_S)
