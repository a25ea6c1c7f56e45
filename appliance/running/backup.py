"""`delineate backup` and `delineate restore`: rows and files of a box that goes on working.

The order is the point. The database comes first: every row names files that were durable before it was written, so a
copy of the files that is made later has them all. The files follow in the direction in which they move (slots,
arrivals, instances), so that one that moves on meanwhile is met at its next place. What came after the rows were copied
is in the copy as a file that no row knows; restoring puts it back into the queue, where it is indexed again.
"""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from appliance import __version__
from appliance.casework.stocktaking import take_stock
from appliance.clock import now_utc
from appliance.errors import ApplianceError
from appliance.records import Database
from appliance.records.dumping import dump, forget_bells, is_dump_in, load
from appliance.settings import Settings
from appliance.spool import Spool
from appliance.spool.holdings import Kind

_MARK = "backup.json"
"""Written last: a folder without it holds half a backup."""
_MOVING = ("slots", "arrivals", "notes")
"""Folders of the spool whose files move on; they are copied anew each time."""
_LASTING = ("quarantine", "instances", "results", "parts")
"""Folders whose files never change once they have their name; a second backup copies what is new."""
_NOT_COPIED = ("spool", "broker", "supervisor.lock")
"""Beside the embedded database: the spool has an order of its own, and the broker holds nothing that rows do not."""


class BackupFailed(ApplianceError):
    """There is no whole backup, or nowhere to put it; the words say what to do."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restored box has.

    Attributes:
        of: when the rows were copied.
        queued_again: objects that came after that; they are indexed again.
        missing: a sentence for each row whose file the backup lacks.
    """

    of: str
    queued_again: int
    missing: tuple[str, ...]


def back_up(settings: Settings, target: Path, *, database_is_done: bool = False) -> str:
    """Copy the box into `target`, which may hold an older backup of it; returns what was copied, in words.

    Args:
        settings: of the box.
        target: a folder outside of `data_dir`.
        database_is_done: somebody else wrote the dump of PostgreSQL into `target` just before.

    Raises:
        BackupFailed: the dump that was said to be there is not, or `target` lies within the box.
        DumpFailed: the database could not be copied.
        DatabaseUnavailable: it is away.
    """
    if target.resolve().is_relative_to(settings.data_dir.resolve()):
        raise BackupFailed(f"{target} lies within {settings.data_dir}; choose a folder on another disk")
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    (target / _MARK).unlink(missing_ok=True)
    database, at = Database(settings.database_url), now_utc()
    schema = database.check()
    if not database_is_done:
        dump(database, target)
    elif not is_dump_in(database, target):
        raise BackupFailed(f"there is no dump of the database in {target}; write it there first, then call this again")
    files = _copy_spool(settings.data_dir / "spool", target / "data" / "spool")
    files += sum(_copy(path, target / "data" / path.name) for path in _others(settings))
    os.sync()
    (target / _MARK).write_text(json.dumps({"release": __version__, "schema": schema, "at": at.isoformat()}) + "\n")
    os.sync()
    return f"schema {schema} and {files} new files in {target}"


def restore(settings: Settings, source: Path) -> Restored:
    """Make a new box of a backup: `data_dir` and the database have to be empty.

    Raises:
        BackupFailed: `source` holds no whole backup, or there is a box here already.
        DumpFailed: the database could not be brought back.
        DatabaseUnavailable: it is away, or the backup is of a newer release.
    """
    if not (source / _MARK).is_file():
        raise BackupFailed(f"{source} holds no whole backup: {_MARK} is missing; take one that was finished")
    told = json.loads((source / _MARK).read_text())
    if any(path.is_file() for path in settings.data_dir.rglob("*")):
        words = f"{settings.data_dir} is not empty; restore into a new data_dir, and leave the old one alone"
        raise BackupFailed(words)
    unfinished = shutil.ignore_patterns(".*.part")
    shutil.copytree(source / "data", settings.data_dir, ignore=unfinished, dirs_exist_ok=True)
    database, spool = Database(settings.database_url), Spool(settings.data_dir / "spool")
    load(database, source)
    database.migrate()
    with database.transaction() as tx:
        forget_bells(tx)
    stock = take_stock(database, spool, now_utc() + timedelta(seconds=1), young=timedelta(0))
    unknown = [one for one in stock.orphans if one.kind is not Kind.RESULT]
    for one in unknown:
        spool.queue_again(one.path, one.written_ns)
    os.sync()
    return Restored(
        told["at"], len(unknown), tuple(f"{kind}/{name} is not in the backup" for kind, name in stock.missing)
    )


def _others(settings: Settings) -> Iterator[Path]:
    """What else the box keeps: models of the hospital, keys."""
    own = Database(settings.database_url).url
    embedded = Path(own.database or "") if own.get_backend_name() == "sqlite" else None
    for path in sorted(settings.data_dir.iterdir()):
        is_database = embedded is not None and path.name.startswith(embedded.name)
        if path.name not in _NOT_COPIED and not is_database:
            yield path


def _copy_spool(spool: Path, target: Path) -> int:
    """In the direction in which objects move, so that none slips by."""
    for name in _MOVING:
        shutil.rmtree(target / name, ignore_errors=True)
    return sum(_copy(spool / name, target / name) for name in (*_MOVING, *_LASTING))


def _copy(source: Path, target: Path) -> int:
    """Copy a file or a folder; what was copied before is left, what vanishes meanwhile has moved on."""
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return sum(_copy(path, target / path.name) for path in sorted(source.iterdir()))
    try:
        if target.exists() and _looks(target) == _looks(source):
            return 0
        partial = target.with_name(f".{target.name}.part")
        shutil.copy2(source, partial)
        partial.replace(target)
    except FileNotFoundError:
        return 0
    return 1


def _looks(path: Path) -> tuple[int, int]:
    """What tells a file that was copied before from one that changed since: its length and when it was written."""
    there = path.stat()
    return there.st_size, there.st_mtime_ns
