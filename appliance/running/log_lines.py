"""What a process says while it works: events as lines on standard error, which may break without harm to the work.

A full disk, a closed pipe or a reader that hangs costs lines of the log and nothing else. What must be known later is
in the audit trail, which is held by the database.
"""

import io
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


def log_to_stderr() -> None:
    """Events, not sentences: JSON lines for machines, colours for a terminal; never a header's free text.

    Whatever else this process or a library prints takes the same way.
    """
    for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
        if stream is None:  # closed; the next file that is opened must not get its number, and the log with it
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    sys.stdout, sys.stderr = SinkThatMayBreak(1), SinkThatMayBreak(2)
    for_people = sys.stderr.isatty()
    # a traceback names lines of ours and never what was in their variables, which may be a patient
    traces = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    last: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if for_people
        else [structlog.processors.ExceptionRenderer(traces), structlog.processors.JSONRenderer()]
    )
    first: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*first, *last],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, sys.stderr)),
    )
    handler = logging.StreamHandler(sys.stderr)  # what libraries say goes the same way
    meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *first], processors=[meta, *last]
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.captureWarnings(capture=True)
    for talker in ("pydicom", "py.warnings"):
        logging.getLogger(talker).setLevel(logging.ERROR)  # their warnings quote what the header says
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # its errors quote what a peer said
