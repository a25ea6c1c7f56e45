"""The listener's housekeeper: a process beside the data path that does what no sender has to wait for.

It hands filled slots over to the assembler, makes new slots, and turns reports into notes. Nothing is lost with it:
what an association has kept lies in its slot, and the next housekeeper, or the next listener, finds it there.
"""

import os
import select
import signal
import threading

import structlog

from appliance.clock import monotonic_s
from appliance.intake.reports import BoundedNotes, Reports
from appliance.spool import SlotPool, Spool
from appliance.spool.slots import ABSENT, FILLED, FREE

_EVERY_S = 1.0
_BATCH = 8
"""Slots made at once, so that filled ones never wait for long."""

_NICENESS = 10
_NAP_S = 0.02
_QUIET_S = 2.0
_SHORT = 0.25
"""Share of the pool below which slots are made whatever else happens."""

log = structlog.get_logger()


class Housekeeper:
    """Keeps the pool filled and the spool informed."""

    def __init__(self, spool: Spool, pool: SlotPool, reports: Reports, reserve_mb: int) -> None:
        self._spool = spool
        self._pool = pool
        self._reports = reports
        self._reserve_mb = reserve_mb
        self._notes = BoundedNotes(spool)
        self._last_filled_s = -_QUIET_S

    def run(self) -> None:
        """Work until all other processes of the listener have ended."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # it ends last, by itself
        os.nice(_NICENESS)
        self._reports.only_read()
        rest, ended, busy = b"", False, True
        while not ended:
            ready, _, _ = select.select([self._reports.readable, self._pool.woken], [], [], 0 if busy else _EVERY_S)
            if self._pool.woken in ready:
                os.read(self._pool.woken, 1 << 16)
            if self._reports.readable in ready:
                piece = os.read(self._reports.readable, 1 << 16)
                ended = not piece
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    self._notes.take(line)
            self._notes.settle(everything=ended)
            busy = self._tend(refill=not ended)
            if not (busy or ended):
                threading.Event().wait(_NAP_S)  # what comes meanwhile is done in one round

    def _tend(self, *, refill: bool) -> bool:
        """One round over the slots; whether there is more to do at once."""
        try:
            self._pool.settle_orphans()
            for number in self._pool.numbers(FILLED):
                self._hand_over(number)
            absent = self._pool.numbers(ABSENT, _BATCH)
            if not (refill and absent and self._may_refill() and self._has_space()):
                return False
            self._pool.refill(absent)
        except OSError:
            log.exception("slots_not_made")
            return False
        return len(absent) == _BATCH

    def _hand_over(self, number: int) -> None:
        self._last_filled_s = monotonic_s()
        try:
            self._spool.hand_over(self._pool, number)
        except OSError:  # it stays where it is, and is tried again
            log.exception("slot_not_handed_over")

    def _may_refill(self) -> bool:
        """While objects come, the disk is theirs, until slots run short."""
        is_quiet = monotonic_s() - self._last_filled_s > _QUIET_S
        return is_quiet or self._pool.count(FREE) < self._pool.slots * _SHORT

    def _has_space(self) -> bool:
        return self._spool.free_mb() - self._reserve_mb > 2 * _BATCH * self._pool.slot_bytes >> 20
