"""`delineate up`: the embedded broker, and the roles as child processes that are started again when they die.

There is a worker for each device. The listener starts at once; what needs rows starts when the database is there.
"""

import fcntl
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import structlog

from appliance.clock import monotonic_s
from appliance.errors import SettingsError
from appliance.records import Database
from appliance.running.broker import EmbeddedBroker
from appliance.running.chronicle import Chronicle
from appliance.running.roles import ROLES, check_tls, stop_on_signal
from appliance.running.schema_first import SchemaFirst
from appliance.settings import Settings

STOP_WITHIN_S = 8.0
"""Children that have not left by then are killed, so that the whole box stops within ten seconds."""

_FIRST_WAIT_S, _LONGEST_WAIT_S, _HEALTHY_AFTER_S = 0.5, 30.0, 60.0
_BROKER_AGAIN_S = 5.0
_NEEDS_NO_ROWS = frozenset({"listen"})

log = structlog.get_logger()


@dataclass
class _Child:
    """One supervised process, and what it is told beside its role."""

    role: str
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    start_again_s: float = 0.0
    wait_s: float = field(default=_FIRST_WAIT_S)


class Supervisor:
    """Keeps the appliance's processes running until it is told to stop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._children = [_Child(role) for role in ROLES if role != "work"]
        self._children += [_Child("work", ("--device", device)) for device in settings.worker.devices]
        self._broker = EmbeddedBroker(settings) if settings.broker.url is None else None
        self._broker_again_s = 0.0
        database = Database(settings.database_url)
        self._schema = SchemaFirst(database)
        self._chronicle = Chronicle(database, self._schema.is_there)

    def run(self) -> None:
        """Start everything, watch it, and stop it all on SIGTERM or SIGINT.

        Raises:
            SettingsError: another supervisor runs on this data folder, the broker's port is taken, or a certificate
                cannot be used.
            DatabaseUnsafe: the database may lose what it commits.
        """
        stop = stop_on_signal()
        check_tls(self._settings)
        with _only_one(self._settings.data_dir):
            if self._broker is not None:
                self._broker.start()
            self._schema.begin(stop)
            self._chronicle.begin()
            try:
                while not stop.wait(0.2):
                    self._look_after()
            finally:
                self._stop_all()

    def _look_after(self) -> None:
        self._look_after_broker()
        has_rows = self._schema.is_there()
        for child in self._children:
            if child.process is not None and child.process.poll() is not None:
                self._mourn(child, child.process.returncode)
            may_start = has_rows or child.role in _NEEDS_NO_ROWS
            if child.process is None and may_start and monotonic_s() >= child.start_again_s:
                self._start(child)

    def _look_after_broker(self) -> None:
        """Start the broker again when it died. The others go on without it: it is a doorbell."""
        if self._broker is None or monotonic_s() < self._broker_again_s or (code := self._broker.exit_code()) is None:
            return
        self._broker_again_s = monotonic_s() + _BROKER_AGAIN_S
        self._note_death("broker", code)
        try:
            self._broker.start()
        except SettingsError as problem:
            log.warning("broker_does_not_start", error=str(problem))

    def _start(self, child: _Child) -> None:
        command = [sys.executable, "-m", "appliance", "--config", str(self._settings.folder)]
        child.process = subprocess.Popen(  # noqa: S603 - our own code
            [*command, child.role, *child.options, "--leave-with-parent"], stdin=subprocess.PIPE
        )
        child.started_s = monotonic_s()
        log.info("started", role=child.role, options=child.options, pid=child.process.pid)

    def _mourn(self, child: _Child, exit_code: int) -> None:
        """Note a death and plan the next start; a process that ran well for a while starts again at once."""
        lived_s = monotonic_s() - child.started_s
        child.wait_s = _FIRST_WAIT_S if lived_s > _HEALTHY_AFTER_S else min(2 * child.wait_s, _LONGEST_WAIT_S)
        child.start_again_s = monotonic_s() + child.wait_s
        child.process = None
        self._note_death(child.role, exit_code)

    def _note_death(self, role: str, exit_code: int) -> None:
        log.error("died", role=role, exit_code=exit_code)
        self._chronicle.tell("process_restarted", process=role, exit_code=exit_code)

    def _stop_all(self) -> None:
        processes = [child.process for child in self._children if child.process is not None]
        for process in processes:
            process.terminate()
        deadline_s = monotonic_s() + STOP_WITHIN_S
        for process in processes:
            try:
                process.wait(max(0.1, deadline_s - monotonic_s()))
            except subprocess.TimeoutExpired:
                log.warning("killed", pid=process.pid)
                process.kill()
                process.wait()
        if self._broker is not None:
            self._broker.stop()
        self._chronicle.end()
        log.info("stopped")


class _only_one:  # noqa: N801 - reads as a phrase where it is used
    """Holds the data folder for one supervisor."""

    def __init__(self, data_dir: Path) -> None:
        data_dir.mkdir(parents=True, exist_ok=True)
        self._path = data_dir / "supervisor.lock"
        self._file: IO[str] | None = None

    def __enter__(self) -> None:
        self._file = self._path.open("w")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            message = f"another `delineate up` runs on {self._path.parent}; stop it first or choose another data_dir"
            raise SettingsError(message) from error

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
