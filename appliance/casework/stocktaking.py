"""Rows and files compared: a row whose file is missing, and a file that no row knows."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from appliance.records import Database, Transaction, lasting_files
from appliance.spool import Spool
from appliance.spool.holdings import Held, Kind, held, path_of

YOUNG = timedelta(hours=1)
"""A file gets its row within seconds; one that is younger than this is not yet called an orphan."""


@dataclass(frozen=True, slots=True)
class Stock:
    """What does not fit together.

    Attributes:
        missing: rows of files that should be there and are not, by kind and name.
        orphans: files that no row knows.
        left_over: files that their rows say were removed; removing was interrupted.
    """

    missing: tuple[tuple[Kind, str], ...]
    orphans: tuple[Held, ...]
    left_over: tuple[Held, ...]

    def in_words(self) -> Iterator[str]:
        """One sentence for each finding."""
        for kind, name in self.missing:
            yield f"{kind}/{name} is missing from the disk; restore it from a backup, or send it again"
        for one in self.orphans:
            yield f"{one.kind}/{one.name} is on the disk, but no row knows it"


def take_stock(database: Database, spool: Spool, now: datetime, young: timedelta = YOUNG) -> Stock:
    """Compare all lasting files with all rows; what still waits in the queue, or is `young`, may yet get its row."""
    files = list(held(spool))
    with database.reading() as tx:
        rows = _rows(tx)
    there = {(one.kind, one.name) for one in files}
    missing = [key for key, removed in rows.items() if not removed and key not in there]
    old_ns = int((now - young).timestamp() * 1e9)
    unknown = [one for one in files if (one.kind, one.name) not in rows and one.written_ns <= old_ns]
    waiting = {arrival.digest for arrival in spool.arrivals()} if unknown else set()
    return Stock(
        missing=tuple(key for key in missing if not path_of(spool, *key).exists()),  # or it came while we looked
        orphans=tuple(one for one in unknown if one.name not in waiting),
        left_over=tuple(one for one in files if rows.get((one.kind, one.name), False)),
    )


def _rows(tx: Transaction) -> dict[tuple[Kind, str], bool]:
    """Every file that a row names, and whether it was removed."""
    objects = lasting_files.objects_with_files(tx)
    images = {(Kind.IMAGE if sorted_ else Kind.ASIDE, digest): removed for digest, sorted_, removed in objects}
    results = lasting_files.results_with_files(tx)
    return {**images, **{(Kind.RESULT, file): removed for file, removed in results}}
