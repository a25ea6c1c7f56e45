"""A thread for each destination or caller that is due for something, so that one that hangs holds up nobody else."""

import threading
from collections.abc import Callable
from datetime import datetime
from functools import partial

from appliance.clock import monotonic_s, now_utc
from appliance.delivery.outbox import Outbox
from appliance.delivery.vouching import Voucher
from appliance.records.session import DatabaseUnavailable
from appliance.spool import Note

GRACE_S = 2.0
"""How long what is being sent may take to end by itself once the process is told to stop."""

_CUT_S = 4.0
"""How long the threads may take to write down that they were cut off."""


class Lanes:
    """Serves whoever is due for something, each in a thread of its own, one at a time for each."""

    def __init__(self, outbox: Outbox, voucher: Voucher, clock: Callable[[], datetime] = now_utc) -> None:
        self._outbox = outbox
        self._voucher = voucher
        self._clock = clock
        self._busy: dict[str, threading.Thread] = {}
        self._gave_up: list[DatabaseUnavailable] = []

    def look(self) -> None:
        """Hear what was reported, and start a thread for everybody who is due for something and has none.

        Raises:
            DatabaseUnavailable: a thread met it; whoever supervises starts this process again.
        """
        if self._gave_up:
            raise self._gave_up[0]
        self._outbox.hear(self._clock())
        self._busy = {name: thread for name, thread in self._busy.items() if thread.is_alive()}
        for destination in self._outbox.destinations_due(self._clock()):
            self._start(f"to {destination}", partial(self._outbox.serve, destination, self._clock))
        for caller, notes in self._voucher.waiting().items():
            self._start(f"answer {caller}", partial(self._answer, notes))

    def stop(self) -> None:
        """End soon: what is being sent may finish for a moment, then it is cut off and its row stays due."""
        self._outbox.stop_soon()
        self._join(GRACE_S)
        self._outbox.hang_up()
        self._join(_CUT_S)

    def _start(self, name: str, work: Callable[[], None]) -> None:
        if name in self._busy:
            return

        def run() -> None:
            try:
                work()
            except DatabaseUnavailable as away:
                self._gave_up.append(away)

        self._busy[name] = threading.Thread(target=run, name=name, daemon=True)
        self._busy[name].start()

    def _answer(self, notes: list[Note]) -> None:
        """Answer one caller's requests, until it cannot be reached or it is time to stop."""
        for note in notes:
            if self._outbox.is_stopping or not self._voucher.answer(note, self._clock()):
                return

    def _join(self, within_s: float) -> None:
        end_s = monotonic_s() + within_s
        for thread in self._busy.values():
            thread.join(max(0.0, end_s - monotonic_s()))
