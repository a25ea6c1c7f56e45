"""A box at a steady pace: everything is delivered once, and nothing that a process takes grows.

The long form lasts MINUTES (20 unless set).
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.delivery.store_scu import echo
from appliance.records.tables import CaseState
from appliance.running.roles import ROLES
from tests.support.appliance_box import ApplianceBox
from tests.support.fake_pacs import FakePacs
from tests.support.gauge import Gauge
from tests.support.patients import make_patient
from tests.support.proof import Tally
from tests.support.residue import residue
from tests.support.waiting import wait_until

PACE_S = 2.0
"""Between the beginnings of two series, each over several associations."""

ASSOCIATIONS = 4
ECHOES = 6
WARM_UP_S, LONGEST_WARM_UP_S = 6.0, 120.0
CAUGHT_UP_WITHIN_S = 180.0
FLAT_PERCENT_AN_HOUR = 1.0
NOISE_BYTES = 4 << 20
"""What an allocator keeps or gives back from one moment to the next; a short run sees little else."""


@pytest.fixture
def box(tmp_path: Path) -> Iterator[ApplianceBox]:
    with FakePacs() as pacs, ApplianceBox(tmp_path / "box", pacs) as box:
        yield box


class _Pace:
    """Sends series after series, and keeps the pace whatever they cost."""

    def __init__(self, box: ApplianceBox, folder: Path) -> None:
        self._box, self._folder = box, folder
        self.series: list[Path] = []
        self.associations = 0

    def keep(self, seconds: float, each: Callable[[], None]) -> None:
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            next_s = time.monotonic() + PACE_S
            self._one()
            each()
            time.sleep(max(0.0, next_s - time.monotonic()))

    def _one(self) -> None:
        number = len(self.series)
        paths = make_patient(self._folder / str(number), f"soak{number}")
        for part in range(ASSOCIATIONS):
            self._box.send(paths[part::ASSOCIATIONS])
        for _ in range(ECHOES):
            echo(self._box.sender, self._box.me)
        self.associations += ASSOCIATIONS + ECHOES
        self.series.append(paths[0])
        for path in paths[1:]:
            path.unlink()


@pytest.mark.fault("soak", "never stuck")
@pytest.mark.timeout(0)
def test_at_a_steady_pace_everything_is_delivered_once_and_nothing_grows(
    box: ApplianceBox, tmp_path: Path, tally: Tally, times: Callable[[int, int], int]
) -> None:
    lasts_s = times(20, int(float(os.environ.get("MINUTES", "20")) * 60))
    pace = _Pace(box, tmp_path)
    pace.keep(min(max(WARM_UP_S, lasts_s / 10), LONGEST_WARM_UP_S), lambda: None)
    gauges = {role: Gauge(box.role(role)) for role in ROLES}

    def look() -> None:
        for gauge in gauges.values():
            gauge.sample()

    pace.keep(lasts_s, look)
    for path in pace.series:
        case = box.wait_for_case(path, CaseState.COMMITTED, timeout_s=CAUGHT_UP_WITHIN_S)
        tally.count(held=box.pacs.received.count(case.result_sop_instance_uid or "nothing") == 1)
    wait_until(lambda: not residue(box), 60, "everything to be accounted for")
    look()
    tally.figures["associations"] = f"{pace.associations:,}"
    tally.figures["minutes"] = f"{lasts_s / 60:.1f}"
    for role, gauge in gauges.items():
        _assert_flat(gauge, lasts_s / 3600, role)
        grew_mb = gauge.growth_bytes() / 2**20
        rate = f"{gauge.percent_an_hour():+.1f} % an hour" if lasts_s >= 1200 else f"{grew_mb:+.1f} MB"
        tally.figures[f"memory of {role}"] = rate


def _assert_flat(gauge: Gauge, hours: float, role: str) -> None:
    assert gauge.process.is_running(), f"{role} is another process now"
    first, last = gauge.samples[0], gauge.samples[-1]
    allowed = max(first.rss * FLAT_PERCENT_AN_HOUR / 100 * hours, NOISE_BYTES)
    assert gauge.growth_bytes() <= allowed, f"{role} grew by {gauge.growth_bytes() / 2**20:.1f} MB"
    for what in ("threads", "descriptors"):
        usual = max(getattr(one, what) for one in gauge.samples[: max(len(gauge.samples) // 4, 1)])
        assert getattr(last, what) <= usual + 2, f"{role} has {getattr(last, what)} {what}, {usual} at first"
