"""A worker's bench as a process of its own, seen from the worker: orders go in, reports come out, as lines of JSON.

The process leaves when its standard input closes, so it never outlives its worker.
"""

import json
import os
import selectors
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

_READ_BYTES = 1 << 16


class BenchProcess:
    """One such process, from its start to its end.

    Args:
        command: what to run.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own code
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise OSError("a process without pipes")
        self._orders, self._output = self._process.stdin, self._process.stdout
        self._reports = self._output.fileno()
        os.set_blocking(self._reports, False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._reports, selectors.EVENT_READ)
        self._half = b""

    @property
    def pid(self) -> int:
        """Its process ID."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it lives."""
        return self._process.poll()

    def tell(self, order: dict[str, Any]) -> None:
        """Give it an order; one that is given to the dead is lost, which shows in the exit code."""
        with suppress(BrokenPipeError):
            self._orders.write(json.dumps(order).encode() + b"\n")
            self._orders.flush()

    def reports(self, wait_s: float) -> list[dict[str, Any]]:
        """What it has said since; waits for something, but no longer than this."""
        if not self._selector.select(wait_s):
            return []
        with suppress(BlockingIOError):
            self._half += os.read(self._reports, _READ_BYTES)
        *lines, self._half = self._half.split(b"\n")
        return [json.loads(line) for line in lines]

    def resident_bytes(self) -> int:
        """Memory that it holds now (proc(5), VmRSS); 0 once it is dead."""
        with suppress(OSError):
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        return 0

    def kill(self) -> None:
        """End it at once, whatever it is doing."""
        self._process.kill()
        self._close()

    def leave(self, within_s: float) -> None:
        """Let it go, and end it if it does not."""
        with suppress(BrokenPipeError):
            self._orders.close()
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._close()

    def _close(self) -> None:
        self._process.wait()
        self._selector.close()
        for pipe in (self._orders, self._output):
            with suppress(OSError):
                pipe.close()
