"""A copy of the whole database at one moment, and its way back; others go on reading and writing meanwhile.

SQLite is copied with its online backup, PostgreSQL with its own pg_dump and pg_restore.
"""

import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import inspect, update
from sqlalchemy.exc import SQLAlchemyError

from appliance.errors import ApplianceError
from appliance.records.session import Database, DatabaseUnavailable, Transaction
from appliance.records.tables import Case, CaseState

_SQLITE, _POSTGRESQL = "database.sqlite", "database.dump"


class DumpFailed(ApplianceError):
    """The database could not be copied or brought back; the words say why and what to do."""


def dump(database: Database, folder: Path) -> Path:
    """Write the database as it is at this moment into `folder`; an older dump there is replaced once this one is whole.

    Raises:
        DumpFailed: with a sentence that says what to do.
    """
    target = folder / _name(database)
    new = target.with_suffix(".new")
    new.unlink(missing_ok=True)
    if database.url.get_backend_name() == "sqlite":
        _copy_sqlite(Path(database.url.database or ""), new)
    else:
        _run("pg_dump", database, "--format=custom", "--no-owner", f"--file={new}")
    new.replace(target)
    return target


def is_dump_in(database: Database, folder: Path) -> bool:
    """Whether there is a dump for this kind of database."""
    return (folder / _name(database)).is_file()


def load(database: Database, folder: Path) -> None:
    """Bring back what `dump` wrote, into a database without tables.

    Raises:
        DumpFailed: there is no dump for this kind of database, or this one holds tables already.
        DatabaseUnavailable: the database cannot be reached.
    """
    source = folder / _name(database)
    if not source.is_file():
        raise DumpFailed(f"{source} is not there: the backup is of another kind of database; correct database.url")
    try:
        tables = inspect(database.engine).get_table_names()
    except SQLAlchemyError as error:
        raise DatabaseUnavailable(f"{database.display_url}: {str(error).splitlines()[0]}") from error
    if tables:
        raise DumpFailed(f"{database.display_url} has tables already; restore into an empty database")
    if database.url.get_backend_name() == "sqlite":
        database.engine.dispose()
        _copy_sqlite(source, Path(database.url.database or ""))
    else:
        _run("pg_restore", database, "--exit-on-error", "--single-transaction", "--no-owner", str(source))


def forget_bells(tx: Transaction) -> None:
    """Have workers rung for again at once: the broker that was told of these cases is another one, or empty."""
    tx.execute(update(Case).where(Case.state == CaseState.QUEUED).values(rung_at=None))


def _name(database: Database) -> str:
    return _SQLITE if database.url.get_backend_name() == "sqlite" else _POSTGRESQL


def _copy_sqlite(source: Path, target: Path) -> None:
    try:
        with closing(sqlite3.connect(source)) as ours, closing(sqlite3.connect(target)) as copy:
            ours.backup(copy)
            (verdict,) = copy.execute("PRAGMA integrity_check").fetchone()
    except sqlite3.Error as error:
        raise DumpFailed(f"{source} could not be copied to {target}: {error}") from error
    if verdict != "ok":
        raise DumpFailed(f"the copy of {source} is damaged: {verdict}; examine the disks before anything else")


def _run(program: str, database: Database, *options: str) -> None:
    """Run a program of PostgreSQL on this database.

    Raises:
        DumpFailed: it is not installed, or ended with an error.
    """
    if shutil.which(program) is None:
        words = f"{program} is not installed; install the client programs of your PostgreSQL's version"
        raise DumpFailed(words)
    with _address(database) as address:
        done = subprocess.run(  # noqa: S603 - no shell; the address is of our own settings
            [program, f"--dbname={address}", *options], capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise DumpFailed(f"{program} failed: {(done.stderr.strip().splitlines() or ['it does not say why'])[0]}")


@contextmanager
def _address(database: Database) -> Iterator[str]:
    """The address for libpq, its password in a file that only we may read: others see command lines."""
    named = database.url.translate_connect_args(database="dbname", username="user")
    told = {name: str(value) for name, value in {**named, **database.url.query}.items()}
    password = told.pop("password", None)
    with tempfile.TemporaryDirectory() as folder:
        if password is not None:
            told["passfile"] = str(Path(folder) / "pgpass")
            with os.fdopen(os.open(told["passfile"], os.O_WRONLY | os.O_CREAT, 0o600), "w") as passwords:
                passwords.write(f"*:*:*:*:{_escaped(password, ':')}\n")
        yield " ".join(f"{name}='{_escaped(value, chr(39))}'" for name, value in told.items())


def _escaped(text: str, special: str) -> str:
    return text.replace("\\", "\\\\").replace(special, f"\\{special}")
