"""One running appliance with its PACS for all tests that leave it as they found it; each sends series of its own."""

from collections.abc import Iterator

import pytest

from tests.support.appliance_box import ApplianceBox
from tests.support.fake_pacs import FakePacs


@pytest.fixture(scope="session")
def pacs() -> Iterator[FakePacs]:
    """The PACS that the shared appliance sends to."""
    with FakePacs() as pacs:
        yield pacs


@pytest.fixture(scope="session")
def box(tmp_path_factory: pytest.TempPathFactory, pacs: FakePacs) -> Iterator[ApplianceBox]:
    """The shared appliance."""
    with ApplianceBox(tmp_path_factory.mktemp("box"), pacs) as box:
        yield box
