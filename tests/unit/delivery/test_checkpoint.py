"""An association's thread and whoever sends on it never run at once, however the machine schedules them."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from appliance.delivery.checkpoint import Checkpoint


class Reactor:
    """The loop of pynetdicom's association (association.py, `_run_reactor`), which notes when it is not paused."""

    def __init__(self, make: Callable[[Any], threading.Event]) -> None:
        self._is_paused = False
        self._reactor_checkpoint = make(self)
        self._reactor_checkpoint.set()
        self.ended = False
        self.held = False  #: somebody sends
        self.collisions = 0

    def run(self) -> None:
        while not self.ended:
            self._is_paused = True
            self._reactor_checkpoint.wait()
            self._is_paused = False
            self.collisions += self.held

    def send(self) -> None:
        """As its `send_*` do."""
        self._reactor_checkpoint.clear()
        while not self._is_paused:
            pass
        self.held = True
        time.sleep(0.0002)  # an answer is waited for
        self.held = False
        self._reactor_checkpoint.set()


@pytest.fixture
def _switching_often() -> Iterator[None]:
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before_s)


def _collisions(make: Callable[[Any], threading.Event], times: int) -> int:
    reactor = Reactor(make)
    thread = threading.Thread(target=reactor.run)
    thread.start()
    for _ in range(times):
        reactor.send()
    reactor.ended = True
    reactor._reactor_checkpoint.set()
    thread.join(20)
    assert not thread.is_alive()
    return reactor.collisions


@pytest.mark.usefixtures("_switching_often")
def test_whoever_sends_is_alone_with_the_association() -> None:
    assert _collisions(Checkpoint, 500) == 0


@pytest.mark.usefixtures("_switching_often")
def test_an_ordinary_event_does_not_see_to_that() -> None:
    """Were this one day no longer so, the checkpoint could go."""
    assert _collisions(lambda _reactor: threading.Event(), 500) > 0
