"""What most roles need first: a database that answers, keeps what it commits, and has the schema of this release."""

import threading

import structlog

from appliance.records import Database
from appliance.records.session import DatabaseUnavailable, DatabaseUnsafe

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0

log = structlog.get_logger()


class SchemaFirst:
    """Migrates in a thread of its own, again and again while the database is away: receiving does not wait for it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._is_there = threading.Event()
        self._unsafe: DatabaseUnsafe | None = None

    def begin(self, stop: threading.Event) -> None:
        """Start trying, until it succeeds or `stop` is set."""
        threading.Thread(target=self._try, args=(stop,), name="schema", daemon=True).start()

    def is_there(self) -> bool:
        """Whether the database is ready for this release.

        Raises:
            DatabaseUnsafe: it answers, and may lose what it commits; a person has to change that.
        """
        if self._unsafe is not None:
            raise self._unsafe
        return self._is_there.is_set()

    def _try(self, stop: threading.Event) -> None:
        wait_s = FIRST_WAIT_S
        while not stop.is_set():
            try:
                self._database.migrate()
            except DatabaseUnsafe as unsafe:
                self._unsafe = unsafe
                return
            except DatabaseUnavailable as away:
                log.warning("database_unavailable", error=str(away), again_in_s=wait_s)
                stop.wait(wait_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            else:
                self._is_there.set()
                return
