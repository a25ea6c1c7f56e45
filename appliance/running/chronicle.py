"""What the supervisor has to tell the trail, kept until the database takes it; nobody waits for that."""

import queue
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

import structlog

from appliance.audit import trail
from appliance.clock import now_utc
from appliance.records import Database
from appliance.records.session import DatabaseUnavailable

_AGAIN_S = 2.0
_AT_MOST = 1000
"""Events that wait; beyond that the oldest stand in the log alone."""

log = structlog.get_logger()


class Chronicle:
    """Writes events of the box in a thread of its own, in their order, as soon as the database can take them."""

    def __init__(self, database: Database, is_ready: Callable[[], bool]) -> None:
        self._database = database
        self._is_ready = is_ready
        self._waiting: queue.Queue[tuple[str, datetime, dict[str, Any]]] = queue.Queue(_AT_MOST)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write, name="chronicle", daemon=True)

    def begin(self) -> None:
        """Start writing."""
        self._thread.start()

    def tell(self, event: str, **fields: Any) -> None:
        """Have an event written, with the time of now."""
        if self._waiting.full():
            self._waiting.get_nowait()
        self._waiting.put_nowait((event, now_utc(), fields))

    def end(self) -> None:
        """Stop; what the database does not take within a second is in the log alone."""
        self._stop.set()
        self._thread.join(timeout=1.0)

    def _write(self) -> None:
        while not (self._stop.is_set() and self._waiting.empty()):
            try:
                event, at, fields = self._waiting.get(timeout=0.2)
            except queue.Empty:
                continue
            while not self._is_written(event, at, fields):
                if self._stop.wait(_AGAIN_S):
                    return

    def _is_written(self, event: str, at: datetime, fields: dict[str, Any]) -> bool:
        try:
            if not self._is_ready():
                return False
            with self._database.transaction() as tx:
                trail.record(tx, event, at=at, actor="supervisor", **fields)
        except DatabaseUnavailable as away:
            log.warning("database_unavailable", error=str(away))
            return False
        return True
