"""From the spool to queued cases in the test's own process, by a clock that the test moves."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path

from appliance.dicom.ct_series import assemble_series
from appliance.dicom.ct_slice import parse_slice
from appliance.dicom.ct_volume import input_digest, load_volume
from appliance.intake.assembler import Assembler
from appliance.intake.counting import Counting
from appliance.records import Database, queries
from appliance.records.tables import Case, Instance
from appliance.settings import Settings
from appliance.spool import Spool
from tests.support.arriving import arrive_all
from tests.support.reading import READING
from tests.support.rows import NOON


class ReceivingLine:
    """An assembler with its spool and rows, and those who ask archives for it."""

    def __init__(self, settings: Settings, database: Database, spool: Spool) -> None:
        self.settings, self.database, self.spool = settings, database, spool
        self.seconds = 0.0
        self.assembler = Assembler(settings, database, spool, READING, steady=lambda: self.seconds)
        self._asking = [Counting(settings, database, name) for name, peer in settings.peers.items() if peer.query]

    def receive(self, paths: Iterable[Path]) -> None:
        """These come, in this order, and are indexed."""
        arrive_all(self.spool, paths)
        self.look()

    def look(self) -> None:
        """One moment: everything that is due happens."""
        for _ in range(2):
            while self.assembler.sweep(NOON + timedelta(seconds=self.seconds)):
                pass
            for asking in self._asking:
                asking.work(NOON + timedelta(seconds=self.seconds))
        self.assembler.sweep(NOON + timedelta(seconds=self.seconds))

    def pass_time(self, seconds: float, steps: int = 2) -> None:
        """Time passes, with a look at each step."""
        for _ in range(steps):
            self.seconds += seconds / steps
            self.look()

    def be_quiet(self) -> None:
        """Nothing comes for the quiet time."""
        self.pass_time(self.settings.intake.series_quiet_s)

    @property
    def cases(self) -> list[Case]:
        with self.database.reading() as tx:
            return list(tx.query(Case).order_by(Case.id))

    @property
    def instances(self) -> list[Instance]:
        with self.database.reading() as tx:
            return list(tx.query(Instance).order_by(Instance.id))

    def case_of(self, series_instance_uid: str) -> Case:
        """The newest revision of a series."""
        return [case for case in self.cases if case.series_instance_uid == series_instance_uid][-1]

    def instances_of(self, case: Case) -> Sequence[Instance]:
        with self.database.reading() as tx:
            return queries.instances_of(tx, case)

    def volume_digest(self, case: Case) -> str:
        """SHA-256 of what a model would see of a case."""
        paths = [self.spool.instance_path(one.digest) for one in self.instances_of(case)]
        series = assemble_series([parse_slice(path) for path in paths])
        return input_digest(series, load_volume(series))
