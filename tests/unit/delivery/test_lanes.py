"""A thread for each destination: one that hangs holds up nobody, and the process stops within seconds all the same."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.delivery.lanes import Lanes
from appliance.delivery.outbox import Outbox
from appliance.delivery.store_scu import Caller
from appliance.delivery.vouching import Voucher
from appliance.records import Database
from appliance.records.tables import CaseState, DeliveryState
from appliance.spool import Spool
from tests.support.fake_pacs import FakePacs, hang
from tests.support.outbox_site import OutboxSite, at
from tests.support.waiting import wait_until

Build = Callable[..., tuple[OutboxSite, Lanes]]


@pytest.fixture
def build(tmp_path: Path, database: Database, spool: Spool) -> Iterator[Build]:
    made: list[Lanes] = []

    def _build(**pacs: FakePacs) -> tuple[OutboxSite, Lanes]:
        peers = {name: each.peer() for name, each in pacs.items()}
        site = OutboxSite.at(tmp_path, database, spool, peers, network_timeout_s=60.0)
        caller, pacing = Caller.of(site.settings, 60.0), site.hands.pacing(5.0, 60.0)
        outbox = Outbox(site.settings, database, spool, pacing, caller)
        lanes = Lanes(outbox, Voucher(site.settings, database, spool, caller, pacing), clock=lambda: at(0))
        made.append(lanes)
        return site, lanes

    yield _build
    for lanes in made:
        lanes.stop()


def test_a_pacs_that_hangs_holds_up_nobody_else(build: Build) -> None:
    with FakePacs() as slow, FakePacs() as quick:
        slow.play([hang])
        site, lanes = build(slow=slow, quick=quick)
        for number in range(1, 6):
            site.result(number, "slow", "quick", patient="A")
        for _ in range(3):
            lanes.look()
        wait_until(lambda: len(quick.stored) == 5, 20, "five results at the quick one")
        assert slow.received == ["2.25.1"]
        assert slow.associations == 1, "one association for each destination"


def test_told_to_stop_while_a_pacs_hangs_it_stops_within_seconds_and_the_result_stays_due(build: Build) -> None:
    with FakePacs() as slow:
        slow.play([hang])
        site, lanes = build(slow=slow)
        case_id = site.result(1, "slow")
        lanes.look()
        wait_until(lambda: slow.received, 20, "the result to be on its way")
        began_s = time.monotonic()
        lanes.stop()
        assert time.monotonic() - began_s < 10.0, "the time limit of the association is a minute"
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("to slow")]
        assert site.case(case_id).state is CaseState.SENDING
        assert site.delivery(1).state is DeliveryState.PENDING


def test_after_it_was_told_to_stop_nothing_more_is_sent(build: Build) -> None:
    with FakePacs() as pacs:
        site, lanes = build(pacs=pacs)
        site.result(1)
        lanes.stop()
        lanes.look()
        lanes.stop()
        assert pacs.received == []
