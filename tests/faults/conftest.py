"""The faults: each test carries its row by `@pytest.mark.fault(row, promise)` and counts what it tried in `tally`.

`--long` runs the long form (make soak); `--evidence FILE` keeps what was counted, for docs/evidence.md.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.proof import Tally

_TALLIES = pytest.StashKey[list[Tally]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TALLIES] = []


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
    assert tally.tried > 0, "nothing was counted"
    assert tally.failed == 0, f"{tally.failed} of {tally.tried} failed"
    request.config.stash[_TALLIES].append(tally)


def pytest_sessionfinish(session: pytest.Session) -> None:
    target = session.config.getoption("--evidence")
    if target:
        rows = [tally.as_row() for tally in session.config.stash[_TALLIES]]
        Path(target).write_text(json.dumps(rows, indent=1))
