"""A worker that oversees a real bench, without supervisor, broker and network: one case after another, step by step."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from appliance.audit.trail import trail_of
from appliance.casework.overseeing import Overseer
from appliance.failpoint import TRAPS
from appliance.intake.assembler import Assembler
from appliance.records import Database
from appliance.records.tables import AuditEvent, Case, Delivery
from appliance.settings import Settings
from appliance.spool import Spool
from tests.support.arriving import arrive_all
from tests.support.config_folder import BONES, make_settings
from tests.support.model_packages import make_threshold_package
from tests.support.reading import READING
from tests.support.rows import NOON

WORKER = "worker-box-1"


class Overseen:
    """A box of one worker under a folder of its own; `trap` makes its bench die, hang or swell at a place.

    Args:
        folder: for everything; its database has the schema already.
        database: its rows.
        worker: replaces settings of the worker.
    """

    def __init__(self, folder: Path, database: Database, **worker: Any) -> None:
        make_threshold_package(folder / "models" / "thresholds", tile=(16, 32, 32))
        tables = {
            "appliance": {"models_dir": "../models", "data_dir": str(folder)},
            "database": {"url": str(database.url)},
            "worker": {"threads": 1, "engines": ["onnxruntime"], **worker},
        }
        self.settings: Settings = make_settings(folder, tables, protocols={"bones": BONES})
        self.database, self.spool = database, Spool(folder / "spool")
        self.traps = folder / "traps"
        self.traps.mkdir()
        bench = [sys.executable, "-m", "appliance", "--config", str(self.settings.folder), "bench"]
        command = ["env", f"{TRAPS}={self.traps}", *bench, "--device", "cpu", "--name", WORKER]
        self.overseer = Overseer(self.settings, database, WORKER, command)
        minutes = iter(range(10**6))
        steady = lambda: 60.0 * next(minutes)  # noqa: E731 - a clock of its own
        self._assembler = Assembler(self.settings, database, self.spool, READING, steady=steady)

    def receive(self, paths: Sequence[Path]) -> None:
        """Receive objects, and let minutes pass until whatever they are has been examined."""
        arrive_all(self.spool, paths)
        for _ in range(4):
            while self._assembler.sweep(NOON):
                pass

    def trap(self, place: str, what: str) -> None:
        """Set a trap; it springs once."""
        (self.traps / place).write_text(what)

    def cases(self) -> list[Case]:
        """All cases, oldest first."""
        with self.database.reading() as tx:
            return list(tx.query(Case).order_by(Case.id))

    def deliveries(self) -> int:
        """How many results wait to be sent."""
        with self.database.reading() as tx:
            return tx.query(Delivery).count()

    def alarms(self) -> list[str]:
        """What was cried out."""
        with self.database.reading() as tx:
            return [row.fields["sentence"] for row in tx.query(AuditEvent).filter_by(event="alarm_raised")]

    def words(self, case_id: int) -> list[str]:
        """What happened to a case."""
        with self.database.reading() as tx:
            return [entry.words for entry in trail_of(tx, case_id)]
