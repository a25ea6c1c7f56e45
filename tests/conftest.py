"""Fixtures for all tests: each test has its own folder, its own database and its own spool."""

import gc
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from appliance.records import Database
from appliance.spool import Spool
from tests.support.gpu import why_no_gpu

WITHOUT_GPU = "not run without a GPU"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="the long form of the tests of faults")
    parser.addoption("--evidence", metavar="FILE", help="keep what the tests of faults counted, and write the page")


def pytest_configure(config: pytest.Config) -> None:
    # pynetdicom leaves the socket of an association that nobody answered to the garbage collector
    config.addinivalue_line("filterwarnings", r"ignore:unclosed <(socket|appliance\.settings\.tls):ResourceWarning")
    # and its reactor raises InvalidEventError when a release and a time-out meet (pynetdicom 3.0.4, fsm.py)
    reactor = r"ignore:Exception in thread Thread-\d+ \(run_reactor\):pytest.PytestUnhandledThreadExceptionWarning"
    config.addinivalue_line("filterwarnings", reactor)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu and (why := why_no_gpu()) is not None:
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason=f"{WITHOUT_GPU}: {why}"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests of a GPU were not run, and why: what was not seen must not look as if it worked."""
    reasons = [report.longrepr[2] for report in terminalreporter.stats.get("skipped", []) if report.longrepr]
    missing = [reason for reason in reasons if WITHOUT_GPU in reason]
    if missing:
        why = missing[0].partition(f"{WITHOUT_GPU}: ")[2]
        terminalreporter.write_line(f"{len(missing)} tests of a GPU were NOT run: {why}", yellow=True)


@pytest.fixture(scope="session", autouse=True)
def _sockets_are_collected_while_that_filter_holds() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture(scope="session", autouse=True)
def _plain_log() -> None:
    """Lines to read when a test fails; drawing tracebacks in colours takes a second each."""
    structlog.configure(processors=[structlog.processors.format_exc_info, structlog.processors.JSONRenderer()])


@pytest.fixture(scope="module")
def stop_meanwhile() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Stops servers while the next tests run, each of which has its own; all have stopped when the module ends."""
    stopping: list[threading.Thread] = []

    def _stop(stop: Callable[[], None]) -> None:
        stopping.append(threading.Thread(target=stop))
        stopping[-1].start()

    yield _stop
    for thread in stopping:
        thread.join()


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
