"""F29: whoever is told what happens may be away, slow or broken; the trail holds it for them, and the box goes on."""

import os
import random
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.audit import trail
from appliance.audit.feed import CollectorFeed, waiting
from appliance.records import Database
from appliance.records.tables import CaseState
from tests.support.appliance_box import ApplianceBox
from tests.support.certificates import Authority
from tests.support.config_folder import make_settings
from tests.support.fake_pacs import FakePacs
from tests.support.patients import make_patient
from tests.support.proof import Tally
from tests.support.rows import NOON
from tests.support.syslog_collector import Mood, SyslogCollector
from tests.support.trails import verified
from tests.support.waiting import wait_until

Times = Callable[[int, int], int]


@pytest.mark.fault("F29", "never lose")
def test_a_collector_that_is_away_slow_or_broken_has_every_message_in_order_once_it_is_back(
    database: Database, tmp_path: Path, tally: Tally, times: Times
) -> None:
    events = times(600, 20_000)
    dice = random.Random(29)
    moods = [*Mood, *dice.choices(list(Mood), k=times(4, 60))]
    authority = Authority(tmp_path / "authority")
    clock = [0.0]
    with SyslogCollector(authority.issue("collector").files, moods) as collector:
        table = {"collector": f"127.0.0.1:{collector.port}", "collector_timeout_s": 1.0}
        settings = make_settings(tmp_path, {"audit": table, "tls": authority.issue("box").table})
        _record(database, range(events))
        feed = CollectorFeed(settings, database, steady_s=lambda: clock[0])
        for _ in range(events):
            feed.send_waiting(NOON)
            clock[0] += 301.0  # longer than it ever waits before it tries again
            if not waiting(database) and len(collector.connections) >= len(moods):
                break
            if not waiting(database):
                _record(database, range(events, events + 20))
                events += 20
    told = [message.partition(b'UserID="')[2].partition(b'"')[0].decode() for message in collector.distinct]
    lost = set(map(str, range(events))) - {name.removeprefix("process ") for name in told}
    in_order = [int(name.removeprefix("process ")) for name in told]
    tally.counted(events, len(lost))
    assert in_order == sorted(in_order)
    tally.figures["connections that went wrong"] = str(sum(mood is not Mood.GOOD for mood in collector.connections))
    tally.figures["messages that came twice"] = str(len(collector.messages) - len(collector.distinct))


def _record(database: Database, numbers: range) -> None:
    for start in numbers[::100]:
        with database.transaction() as tx:
            for number in range(start, min(start + 100, numbers.stop)):
                name = f"process {number}"
                trail.record(tx, "process_stopped", at=NOON, actor=name, process=name)


@pytest.mark.fault("F29", "never stuck")
def test_with_logs_on_a_full_disk_and_in_a_closed_pipe_a_case_is_delivered_and_all_of_its_events_are_told(
    tmp_path: Path, tally: Tally, times: Times
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    authority = Authority(tmp_path / "authority")
    with SyslogCollector(authority.issue("collector").files) as collector, FakePacs() as pacs:
        table = {"collector": f"127.0.0.1:{collector.port}"}
        box = ApplianceBox(tmp_path / "box", pacs, {"audit": table, "tls": authority.issue("box").table})
        with Path("/dev/full").open("wb") as full:
            box._process = subprocess.Popen(box.command("up"), stdout=full, stderr=writing)
        os.close(writing)
        try:
            wait_until(box.is_ready, 60, "the appliance to answer C-ECHO")
            for number in range(times(1, 20)):
                series = make_patient(tmp_path / f"{number}", f"logs are broken {number}")
                box.send(series)
                case = box.wait_for_case(series[0], CaseState.COMMITTED)
                tally.count(held=box.events(case).count("case_committed") == 1)
            wait_until(lambda: waiting(box.database) == 0, 30, "the collector to have read everything")
            box.stop()
        finally:
            box.kill()
        verdict = verified(box.database, box.settings)
        assert verdict.broken is None
        assert verdict.heads == 1, "signed on the first day"
    codes = Counter(re.findall(rb'EventID csd-code="(\d+)"', b"".join(collector.distinct)))
    assert {b"110100", b"110102", b"110103", b"110104"} <= codes.keys()
    tally.figures["events in the trail, all in order"] = str(verdict.events)
