"""What the listener's processes have to say for the trail, gathered and bounded before it becomes notes.

Whoever is turned away again and again must not fill the disk by it: of what repeats itself from one address, the first
is noted at once, and once a minute how many more there were.
"""

import fcntl
import json
import os
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass

import structlog

from appliance.clock import monotonic_s
from appliance.spool import Spool

_WITHIN_S = 60.0
_MOST_SOURCES = 1024
"""Addresses that are told apart; beyond that, the oldest is settled and forgotten."""

_LONGEST_BYTES = 4096
"""PIPE_BUF: what is no longer is written to a pipe all at once, whoever else writes (pipe(7))."""

_PIPE_BYTES = 1 << 20

log = structlog.get_logger()


class Reports:
    """The pipe through which acceptor and associations report to the housekeeper."""

    def __init__(self) -> None:
        self.readable, self._writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with suppress(OSError):  # an unprivileged user may have used up its share of pipes
            fcntl.fcntl(self._writable, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def report(self, event: str, *, address: str = "", kind: str = "", **fields: object) -> None:
        """Say that something happened; never waits.

        Args:
            event: of the vocabulary of the trail.
            address: of the peer; what repeats itself from there is counted.
            kind: what is counted by itself, of a few that there are.
            fields: what the words of the event need.
        """
        line = json.dumps([event, address, kind, fields]).encode() + b"\n"
        if len(line) > _LONGEST_BYTES:
            raise ValueError("a report is a few words")
        try:
            os.write(self._writable, line)
        except BlockingIOError:
            log.warning("report_lost", report=event)

    def only_read(self) -> None:
        """In the housekeeper: let the pipe end when all others have ended."""
        os.close(self._writable)

    def close(self) -> None:
        """In the acceptor: there will be no further report."""
        os.close(self._writable)
        os.close(self.readable)


@dataclass
class _Source:
    """One kind of event from one address: when its minute ends, and how often it has happened in it."""

    until_s: float
    source_ae: str
    more: int = 0


class BoundedNotes:
    """Turns reports into notes of the spool."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._sources: OrderedDict[tuple[str, str, str], _Source] = OrderedDict()

    def take(self, line: bytes) -> None:
        """Note one report, or count it."""
        event, address, kind, fields = json.loads(line)
        if not address:
            self._write_note(event, fields)
            return
        fields["address"] = address
        if fields.get("stored"):  # it has cost the sender an object: no flood, and each tells how far it came
            self._write_note(event, fields)
            return
        known = self._sources.get((event, address, kind))
        if known is not None:
            known.more += 1
            return
        self._sources[event, address, kind] = _Source(monotonic_s() + _WITHIN_S, str(fields.get("source_ae", "")))
        self._write_note(event, fields)
        if len(self._sources) > _MOST_SOURCES:
            self._settle(next(iter(self._sources)))

    def settle(self, *, everything: bool = False) -> None:
        """Note what was counted, where its minute is over."""
        now_s = monotonic_s()
        for key in [key for key, source in self._sources.items() if everything or source.until_s <= now_s]:
            self._settle(key)

    def _settle(self, key: tuple[str, str, str]) -> None:
        event, address, _ = key
        source = self._sources.pop(key)
        if source.more:
            fields = {"what": event, "address": address, "source_ae": source.source_ae, "count": source.more}
            self._write_note("repeated_from_address", fields)

    def _write_note(self, event: str, fields: dict[str, object]) -> None:
        try:
            self._spool.leave_note("audit", {"event": event, **fields})
        except OSError:
            log.exception("note_lost", note=event)
