"""What a process says while it works: events as lines on standard error, which may break without harm to the work.

A full disk, a closed pipe or a reader that hangs costs lines of the log and nothing else. What must be known later is
in the audit trail, which is held by the database.
"""

import io
import json
import logging
import os
import select
import sys
from typing import TextIO, cast

import structlog

_PATIENCE_S = 1.0
"""How long a reader may hold up a line; one that hangs does so once, until it reads again."""


class SinkThatMayBreak(io.TextIOBase):
    """A stream on a file descriptor whose writes never fail; `lost` counts the lines that did not get through."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._patience_s = _PATIENCE_S
        self.lost = 0

    def write(self, text: str) -> int:
        """Write as much as goes."""
        waiting = memoryview(text.encode("utf-8", "backslashreplace"))
        try:
            while waiting:
                if not select.select((), (self._descriptor,), (), self._patience_s)[1]:
                    raise TimeoutError
                # a pipe that takes anything takes this much at once
                waiting = waiting[os.write(self._descriptor, waiting[: select.PIPE_BUF]) :]
            self._patience_s = _PATIENCE_S
        except OSError:
            self._patience_s = 0.0
            self.lost += 1
        return len(text)

    def writable(self) -> bool:
        """Whether anything may be written: always."""
        return True

    def isatty(self) -> bool:
        """Whether a person reads it."""
        try:
            return os.isatty(self._descriptor)
        except OSError:
            return False

    def fileno(self) -> int:
        """For those who write past this stream."""
        return self._descriptor


class _OneLine(logging.Formatter):
    """What a library logs, as one line of JSON: whatever a peer called itself, it begins no line of its own."""

    def format(self, record: logging.LogRecord) -> str:
        told = {"logger": record.name, "level": record.levelname.lower(), "event": record.getMessage()}
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told)


def log_to_stderr() -> None:
    """Events, not sentences: JSON lines for machines, colours for a terminal; never a header's free text.

    Whatever else this process or a library prints takes the same way.
    """
    for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
        if stream is None:  # closed; the next file that is opened must not get its number, and the log with it
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    sys.stdout, sys.stderr = SinkThatMayBreak(1), SinkThatMayBreak(2)
    on_terminal = sys.stderr.isatty()
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if on_terminal else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.set_exc_info if on_terminal else structlog.processors.dict_tracebacks,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, sys.stderr)),
    )
    logging.getLogger("pydicom").setLevel(logging.ERROR)  # its warnings quote what the header says
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine())
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
