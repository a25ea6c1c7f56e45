"""Removing files whose term is over: images and results once their delivery is proved, what was refused or set aside.

A full disk never shortens a term: it refuses to receive instead, and says so. The row is marked and the event written
before the file goes, and a file goes only while its row still says so: an object that comes again meanwhile is kept.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from appliance.audit import trail
from appliance.casework.stocktaking import take_stock
from appliance.failpoint import failpoint
from appliance.records import Database, Transaction, lasting_files, queries
from appliance.records.tables import Instance, InstanceState, Result
from appliance.settings import Settings
from appliance.spool import Spool
from appliance.spool.holdings import Kind, path_of, remove

ACTOR = "caretaker"
BATCH = 500
"""Files of one transaction."""

_EVERYTHING = 10_000_000
_Rows = Sequence[Instance] | Sequence[Result]


@dataclass(frozen=True, slots=True)
class Removed:
    """How many files were removed, or would be."""

    images: int = 0
    results: int = 0
    aside: int = 0

    def in_words(self) -> str:
        """For people."""
        return f"{self.images} images, {self.results} results, {self.aside} objects that were set aside"


class Retention:
    """Removes what is over its term."""

    def __init__(self, settings: Settings, database: Database, spool: Spool) -> None:
        self._terms = settings.retention
        self._database = database
        self._spool = spool

    def due(self, now: datetime) -> Removed:
        """What a run would remove; changes nothing."""
        with self._database.reading() as tx:
            images, results, aside = (len(find(tx, now, _EVERYTHING)) for find in self._kinds())
        return Removed(images, results, aside)

    def run(self, now: datetime) -> Removed:
        """Remove what is over its term, and what an interrupted run has left."""
        self._erase([(one.kind, one.name) for one in take_stock(self._database, self._spool, now).left_over])
        images, results, aside = (sum(self._batches(find, now)) for find in self._kinds())
        removed = Removed(images, results, aside)
        with self._database.transaction() as tx:
            trail.record(tx, "retention_kept", at=now, actor=ACTOR, words=removed.in_words())
        return removed

    def _kinds(self) -> tuple[Callable[[Transaction, datetime, int], _Rows], ...]:
        return self._images, self._results, self._aside

    def _images(self, tx: Transaction, now: datetime, limit: int) -> Sequence[Instance]:
        proved, refused = _before(now, self._terms.images_days), _before(now, self._terms.refused_days)
        return lasting_files.images_to_remove(tx, proved_before=proved, refused_before=refused, limit=limit)

    def _results(self, tx: Transaction, now: datetime, limit: int) -> Sequence[Result]:
        before = _before(now, self._terms.results_days)
        return lasting_files.results_to_remove(tx, proved_before=before, limit=limit) if before else []

    def _aside(self, tx: Transaction, now: datetime, limit: int) -> Sequence[Instance]:
        before = _before(now, self._terms.quarantine_days)
        return lasting_files.aside_to_remove(tx, received_before=before, limit=limit) if before else []

    def _batches(self, find: Callable[[Transaction, datetime, int], _Rows], now: datetime) -> Iterator[int]:
        while True:
            with self._database.transaction() as tx:
                rows = find(tx, now, BATCH)
                for row in rows:
                    row.removed_at = now
                _tell(tx, rows, now)
                files = [_file_of(row) for row in rows]
            if not files:
                return
            failpoint("files_marked")
            self._erase(files)
            failpoint("files_removed")
            yield len(files)

    def _erase(self, files: Sequence[tuple[Kind, str]]) -> None:
        """Remove files whose rows, locked meanwhile, still say that they are removed."""
        for first in range(0, len(files), BATCH):
            batch = files[first : first + BATCH]
            with self._database.transaction() as tx:
                marked = lasting_files.marked_as_removed(tx, [name for _, name in batch])
                for kind, name in batch:
                    if name in marked:
                        remove(path_of(self._spool, kind, name))


def _before(now: datetime, days: int) -> datetime | None:
    return now - timedelta(days=days) if days else None


def _file_of(row: Instance | Result) -> tuple[Kind, str]:
    if isinstance(row, Result):
        return Kind.RESULT, row.file
    unsorted = row.state is InstanceState.QUARANTINED and row.sop_instance_uid is None
    return (Kind.ASIDE if unsorted else Kind.IMAGE), row.digest


def _tell(tx: Transaction, rows: _Rows, now: datetime) -> None:
    """An event for each case whose files go, with their digests; one for all that was set aside."""
    images: defaultdict[str, list[str]] = defaultdict(list)
    aside = []
    for row in rows:
        if isinstance(row, Result):
            fields = {"object": row.kind.in_words, "sha256": row.digest}
            trail.record(tx, "result_removed", at=now, actor=ACTOR, case_id=row.case_id, **fields)
        elif row.state is InstanceState.QUARANTINED or row.series_instance_uid is None:
            aside.append(row.digest)
        else:
            images[row.series_instance_uid].append(row.digest)
    for series, digests in images.items():
        case = queries.latest_case(tx, series)
        case_id = case.id if case is not None else None
        trail.record(tx, "images_removed", at=now, actor=ACTOR, case_id=case_id, count=len(digests), digests=digests)
    if aside:
        trail.record(tx, "aside_removed", at=now, actor=ACTOR, count=len(aside), digests=aside)
