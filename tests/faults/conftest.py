"""The faults: each test carries its row by `@pytest.mark.fault(row, promise)` and counts what it tried in `tally`.

`--long` runs the long form (make soak); `--evidence docs/evidence.json` keeps what was counted and writes the page.
What is skipped is said at the end and counted; in continuous integration it is a failure, as everything is there.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import WITHOUT_GPU
from tests.support.evidence import FAILED, HELD, SKIPPED, Run, machine_words, write_evidence
from tests.support.proof import Tally
from tests.support.real_parts import PostgreSql

_RUNS = pytest.StashKey[dict[str, tuple[str, str, Run]]]()
_ENDED_EARLY = pytest.StashKey[bool]()
_MARK, _COUNTED = "fault", "counted"


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_RUNS] = {}
    config.pluginmanager.register(_Ledger(config), "ledger-of-faults")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        marker = item.get_closest_marker("fault")
        if marker is not None:
            item.user_properties.append((_MARK, marker.args))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if call.excinfo is not None:
        item.stash[_ENDED_EARLY] = True
    return report


@pytest.fixture
def times(request: pytest.FixtureRequest) -> Callable[[int, int], int]:
    """How often to try: `times(short, long)`."""
    return lambda short, long: long if request.config.getoption("--long") else short


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Iterator[Tally]:
    """Counts the trials of this test; none counted, or one failed, fails it."""
    marker = request.node.get_closest_marker("fault")
    assert marker is not None, "a test of a fault carries its row: @pytest.mark.fault(row, promise)"
    row, promise = marker.args
    tally = Tally(row, promise, request.node.nodeid)
    yield tally
    request.node.user_properties.append((_COUNTED, tally.as_row()))
    if request.node.stash.get(_ENDED_EARLY, False):  # skipped or failed: that says enough
        return
    assert tally.tried > 0, "nothing was counted"
    assert tally.failed == 0, f"{tally.failed} of {tally.tried} failed"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSql]:
    """A PostgreSQL for all tests of faults; each has databases of its own, and leaves the server as it found it."""
    server = PostgreSql()
    yield server
    server.close()


class _Ledger:
    """Hears what became of every test of a fault."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._skipped: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        told = dict(report.user_properties)
        if report.skipped and (_MARK in told or _is_of_faults(report)):
            self._skipped[report.nodeid] = _why(report)
        if _MARK not in told:
            return
        run = Run()
        if report.skipped:
            run = Run(outcome=SKIPPED, why=_why(report))
        elif report.failed:
            run.outcome = FAILED
        if report.when == "teardown" and isinstance(counted := told.get(_COUNTED), dict):
            run.tried, run.failed, run.figures = counted["tried"], counted["failed"], counted["figures"]
        if report.when == "teardown" or run.outcome != HELD:
            self._note(report.nodeid.partition("[")[0], told[_MARK], run)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped and _is_of_faults(report):  # a whole file
            self._skipped[report.nodeid] = _why(report)

    def _note(self, test: str, mark: object, run: Run) -> None:
        row, promise = mark if isinstance(mark, (list, tuple)) else ("", "")
        runs = self._config.stash[_RUNS]
        if test in runs:
            runs[test][2].add(run)
        else:
            runs[test] = (row, promise, run)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(self._config, "workerinput"):  # a process of pytest-xdist; the one that leads it hears it all
            return
        target, runs = self._config.getoption("--evidence"), self._config.stash[_RUNS]
        if target and runs:
            basetemp = Path(os.environ.get("TMPDIR", "/tmp"))  # noqa: S108 - only its file system is named
            write_evidence(Path(target), runs, machine=machine_words(basetemp))
        if self._must_not_be_skipped():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._skipped:
            return
        terminalreporter.section("faults that were NOT tried", yellow=True)
        for test, why in self._skipped.items():
            terminalreporter.write_line(f"{test}: {why}", yellow=True)
        terminalreporter.write_line(f"{len(self._skipped)} tests of faults were NOT run", yellow=True)
        if self._must_not_be_skipped():
            terminalreporter.write_line("in continuous integration that is a failure: .ci/run installs all", red=True)

    def _must_not_be_skipped(self) -> list[str]:
        """Those that nothing excuses: in continuous integration all is there but a GPU."""
        if not os.environ.get("CI"):
            return []
        return [test for test, why in self._skipped.items() if WITHOUT_GPU not in why]


def _is_of_faults(report: pytest.TestReport | pytest.CollectReport) -> bool:
    return report.nodeid.startswith("tests/faults/")


def _why(report: pytest.TestReport | pytest.CollectReport) -> str:
    told = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return told.removeprefix("Skipped: ")
