"""Opening the database and working in it one transaction at a time.

SQLite runs in WAL mode with synchronous=FULL, so that a committed row survives a power cut, and takes its write
lock at the beginning of a transaction, so that two writers wait for one another instead of failing half-way.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from appliance.errors import ApplianceError
from appliance.records.chain import fields_text
from appliance.records.durability import what_is_unsafe

Transaction = Session
"""One unit of work: everything in it happens, or nothing does."""

_SQLITE_BUSY_MS = 30_000
_POSTGRESQL_PATIENCE = {
    "connect_timeout": 10,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""A server whose machine is gone is away after half a minute, not after the kernel's two hours (libpq; s, and ms)."""


class DatabaseUnavailable(ApplianceError):
    """The database cannot be reached or is at another schema version."""


class DatabaseUnsafe(DatabaseUnavailable):
    """The database may lose what it has committed; nothing is written to it."""


class Database:
    """The database behind one SQLAlchemy URL."""

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        if self.url.drivername == "postgresql":
            self.url = self.url.set(drivername="postgresql+psycopg")
        if self.url.get_backend_name() == "sqlite" and self.url.database:
            Path(self.url.database).parent.mkdir(parents=True, exist_ok=True)
        patience = _POSTGRESQL_PATIENCE if self.url.get_backend_name() == "postgresql" else {}
        told = {name: value for name, value in patience.items() if name not in self.url.query}
        self.engine = create_engine(self.url, pool_pre_ping=True, json_serializer=fields_text, connect_args=told)
        if self.engine.dialect.name == "sqlite":
            _prepare_sqlite(self.engine)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """A unit of work that commits at the end and rolls back on any error.

        Raises:
            DatabaseUnavailable: the database is away or takes no writes; nothing was changed.
        """
        try:
            with Session(self.engine, expire_on_commit=False) as session, session.begin():
                yield session
        except (OperationalError, InterfaceError, InternalError) as error:  # the last: PostgreSQL told to be read-only
            raise DatabaseUnavailable(f"{self.display_url}: {_first_line(error)}") from error

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        """A consistent look that takes no write lock; nothing in it may change a row.

        Raises:
            DatabaseUnavailable: the database is away.
        """
        try:
            with Session(self.engine.execution_options(read_only=True), expire_on_commit=False) as session:
                yield session  # closing undoes what was not committed, and leaves the rows that were read as they are
        except (OperationalError, InterfaceError) as error:
            raise DatabaseUnavailable(f"{self.display_url}: {_first_line(error)}") from error

    def migrate(self) -> None:
        """Bring the schema to this release's version.

        Raises:
            DatabaseUnsafe: the database may lose what it has committed.
            DatabaseUnavailable: the database cannot be reached or changed, or belongs to a newer release.
        """
        try:
            with self.engine.begin() as connection:
                self._refuse_if_unsafe(connection)
                self._refuse_if_newer(MigrationContext.configure(connection).get_current_revision())
                command.upgrade(_alembic(connection), "head")
        except SQLAlchemyError as error:
            raise DatabaseUnavailable(f"{self.display_url}: {_first_line(error)}") from error

    def check(self) -> str:
        """The schema version, when the database answers and is this release's.

        Raises:
            DatabaseUnsafe: it may lose what it has committed.
            DatabaseUnavailable: with a sentence that says what is wrong and what to do.
        """
        head = ScriptDirectory.from_config(_alembic()).get_current_head()
        try:
            with self.engine.execution_options(read_only=True).connect() as connection:
                current = MigrationContext.configure(connection).get_current_revision()
                self._refuse_if_unsafe(connection)
        except SQLAlchemyError as error:
            raise DatabaseUnavailable(f"{self.display_url}: {_first_line(error)}") from error
        self._refuse_if_newer(current)
        if current != head:
            message = f"{self.display_url}: schema {current or 'absent'}, expected {head}; run `delineate migrate`"
            raise DatabaseUnavailable(message)
        return str(current)

    def _refuse_if_unsafe(self, connection: Connection) -> None:
        unsafe = what_is_unsafe(connection)
        if unsafe is not None:
            raise DatabaseUnsafe(f"{self.display_url}: {unsafe}")

    def _refuse_if_newer(self, current: str | None) -> None:
        scripts = ScriptDirectory.from_config(_alembic())
        try:
            scripts.get_revision(current or "base")
        except CommandError as unknown:
            head = scripts.get_current_head()
            words = f"schema {current} is of a newer release, this one knows {head}; install that release again"
            raise DatabaseUnavailable(f"{self.display_url}: {words}, or restore the backup of this one") from unknown

    @property
    def display_url(self) -> str:
        """The URL without its password."""
        return self.url.render_as_string(hide_password=True)


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _pragmas(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # the begin below is ours
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            f"busy_timeout={_SQLITE_BUSY_MS}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        read_only = connection.get_execution_options().get("read_only", False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def _alembic(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
