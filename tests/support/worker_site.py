"""A worker in the test's own process, and the one case that waits for it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import FileDataset

from appliance.audit.trail import trail_of
from appliance.casework.attending import attend
from appliance.casework.workbench import Workbench
from appliance.intake.assembler import Assembler
from appliance.records import Database, queries
from appliance.records.tables import Case, CaseState, Delivery, Part, Result, ResultKind
from appliance.settings import Settings
from appliance.spool import Spool
from tests.support.arriving import arrive_all
from tests.support.reading import READING
from tests.support.rows import NOON, read_case

MINUTE = timedelta(minutes=1)
_TIMES = ("StructureSetDate", "StructureSetTime", "ROIDateTime")


@dataclass
class Site:
    """A worker, and the one case that waits for it."""

    bench: Workbench
    case_id: int

    @property
    def case(self) -> Case:
        return read_case(self.bench.database, self.case_id)

    @property
    def deliveries(self) -> list[Delivery]:
        with self.bench.database.reading() as tx:
            return list(queries.deliveries_of(tx, self.case))

    def forget_results(self) -> None:
        """As if nothing had been handed over."""
        with self.bench.database.transaction() as tx:
            tx.query(Delivery).delete()
            tx.query(Result).delete()

    def content(self, kind: ResultKind) -> bytes:
        """The result of this kind as it lies on the disk."""
        result = self.case.result(kind)
        assert result is not None
        content = self.bench.spool.result(result.file)
        assert content is not None
        return content

    def events(self) -> list[str]:
        with self.bench.database.reading() as tx:
            return [entry.event for entry in trail_of(tx, self.case_id)]

    def words_of(self, event: str) -> str:
        with self.bench.database.reading() as tx:
            (words,) = [entry.words for entry in trail_of(tx, self.case_id) if entry.event == event]
            return words

    def attend(self, **changes: Any) -> None:
        attend(replace(self.bench, **changes), self.case_id)

    def change(self, **fields: Any) -> None:
        """As if somebody else had written these fields of the row."""
        with self.bench.database.transaction() as tx:
            case = queries.case_by_id(tx, self.case_id)
            assert case is not None
            for name, value in fields.items():
                setattr(case, name, value)

    def parts(self) -> list[Part]:
        """The parts of the case as they stand."""
        with self.bench.database.reading() as tx:
            return list(queries.parts_of(tx, self.case_id))


def queue_up(settings: Settings, database: Database, spool: Spool, paths: Sequence[Path]) -> Site:
    """Receive one series as the first of a box, and have it queued."""
    site = Site(Workbench(settings, database, spool, worker="worker-1"), case_id=1)
    receive(site, paths)
    assert site.case.state is CaseState.QUEUED
    return site


def receive(site: Site, paths: Sequence[Path]) -> None:
    """Receive slices, and let minutes pass until their series is complete."""
    bench, minutes = site.bench, iter(range(1000))
    arrive_all(bench.spool, paths)
    assembler = Assembler(bench.settings, bench.database, bench.spool, READING, steady=lambda: 60.0 * next(minutes))
    for minute in range(3):
        assembler.sweep(NOON + minute * MINUTE)


def without_times(content: bytes) -> bytes:
    """A structure set as if it had been made at no time at all: the rest of it, byte for byte."""
    dataset = dcmread(BytesIO(content))
    for part in (dataset, *dataset.StructureSetROISequence):
        for keyword in _TIMES:
            if keyword in part:
                setattr(part, keyword, "")
    return _file_of(dataset)


def _file_of(dataset: FileDataset) -> bytes:
    file = BytesIO()
    dataset.save_as(file)
    return file.getvalue()
