"""F15: clocks jump a day ahead or back, summer time begins and ends, the zone is another; nothing depends on them."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from appliance.audit import trail
from appliance.audit.signing import HeadSigner, signed_heads
from appliance.records import Database
from appliance.records.tables import AuditEvent, CaseState
from tests.support.appliance_box import ApplianceBox
from tests.support.config_folder import make_settings
from tests.support.fake_pacs import FakePacs
from tests.support.jumping_clock import jumping_clock
from tests.support.patients import make_patient
from tests.support.proof import Tally
from tests.support.trails import verified

Times = Callable[[int, int], int]
DAY = timedelta(days=1)


@pytest.mark.fault("F15", "never silent")
def test_events_keep_their_order_and_each_day_is_signed_once_wherever_the_clock_jumps(
    database: Database, tmp_path: Path, tally: Tally, times: Times
) -> None:
    dice = random.Random(15)
    signer = HeadSigner(make_settings(tmp_path), database)
    now, days = datetime(2026, 3, 28, 23, 30, tzinfo=UTC), set()  # summer time begins in Europe the night after
    for number in range(times(60, 2_000)):
        now += dice.choice([DAY, -DAY, timedelta(hours=1), -timedelta(hours=1), timedelta(minutes=7)])
        with database.transaction() as tx:
            trail.record(tx, "process_stopped", at=now, actor="worker", process=str(number))
        signer.sign_daily(now)
        days.add(now.date().isoformat())
    with database.reading() as tx:
        told = tx.scalars(select(AuditEvent).where(AuditEvent.event == "process_stopped").order_by(AuditEvent.id))
        order = [int(row.fields["process"]) for row in told]
    tally.count(held=order == list(range(len(order))))
    tally.count(held=verified(database, make_settings(tmp_path)).broken is None)
    signed = [head.day for head in signed_heads(database, None)]
    tally.counted(len(days), len(days) - len(set(signed)))
    assert len(signed) == len(set(signed))


@pytest.mark.fault("F15", "never wrong")
def test_a_running_box_completes_no_series_early_or_late_when_its_clock_jumps_by_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally, times: Times
) -> None:
    jump = jumping_clock(tmp_path / "clock", monkeypatch)
    jumps = [DAY, -DAY, timedelta(), 365 * DAY][: times(2, 4)]
    with FakePacs() as pacs, ApplianceBox(tmp_path / "box", pacs, {"intake": {"series_quiet_s": 4.0}}) as box:
        for number, by in enumerate(jumps):
            series = make_patient(tmp_path / f"{number}", f"the clock jumps {number}")
            half = len(series) // 2
            box.send(series[:half])
            box.wait_for_case(series[0], CaseState.RECEIVING)
            jump(by)
            box.send(series[half:])
            case = box.wait_for_case(series[0], CaseState.COMMITTED)
            tally.count(held=case.slices == len(series) and case.revision == 1)
        assert len(box.cases()) == len(jumps), "no series was taken as complete before its last slice"
    verdict = verified(box.database, box.settings)
    assert verdict.broken is None
    with box.database.reading() as tx:
        told = list(tx.scalars(select(AuditEvent.at)))
    assert max(told) - min(told) > DAY, "the clock did jump"
    tally.figures["events in the trail, in order whatever the clock said"] = str(verdict.events)
