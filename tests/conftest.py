"""Fixtures for all tests: each test has its own folder, its own database and its own spool."""

import gc
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from appliance.records import Database
from appliance.spool import Spool


def pytest_configure(config: pytest.Config) -> None:
    # pynetdicom leaves the socket of an association that nobody answered to the garbage collector
    config.addinivalue_line("filterwarnings", "ignore:unclosed <socket:ResourceWarning")


@pytest.fixture(scope="session", autouse=True)
def _sockets_are_collected_while_that_filter_holds() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database at this release's schema, to copy from."""
    path = tmp_path_factory.mktemp("database") / "empty.sqlite"
    database = Database(f"sqlite:///{path}")
    database.migrate()
    database.engine.dispose()
    return path


@pytest.fixture
def database(tmp_path: Path, migrated_file: Path) -> Iterator[Database]:
    """An empty embedded database."""
    path = shutil.copy(migrated_file, tmp_path / "delineate.sqlite")
    database = Database(f"sqlite:///{path}")
    yield database
    database.engine.dispose()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """An empty spool."""
    return Spool(tmp_path / "spool")
