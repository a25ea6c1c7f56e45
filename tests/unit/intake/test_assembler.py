"""When a series is complete: quiet time and geometry must agree, and every other end has a reason."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from appliance.audit.trail import trail_of, trail_of_box
from appliance.casework.operating import Operator, ask_to_complete, cancel, park, retry
from appliance.intake.assembler import Assembler
from appliance.records import Database, Transaction, queries
from appliance.records.tables import Case, CaseState, Delivery, DeliveryState
from appliance.settings import Settings
from appliance.spool import Spool
from tests.support.arriving import arrive, arrive_all
from tests.support.config_folder import BONES, make_settings
from tests.support.ct_files import all_slices, make_ct_series, only_slice, sample_hu
from tests.support.reading import READING
from tests.support.rows import NOON, new_delivery, new_result

QUIET_S, WAIT_S = 30.0, 600.0


@dataclass
class Bench:
    """An assembler with its spool and rows; time passes when it is told to."""

    settings: Settings
    database: Database
    spool: Spool
    steady_s: float = 0.0
    clock_ahead_s: float = 0.0  #: how far somebody has set the wall clock forward
    assembler: Assembler = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Another process takes over; it knows what the rows say."""
        self.assembler = Assembler(self.settings, self.database, self.spool, READING, steady=lambda: self.steady_s)

    def sweep_at(self, seconds: float) -> None:
        """Rounds, as the process makes them, until nothing more has arrived."""
        self.steady_s = seconds
        while self.assembler.sweep(NOON + timedelta(seconds=seconds + self.clock_ahead_s)):
            pass

    @property
    def cases(self) -> list[Case]:
        with self.database.reading() as tx:
            return list(tx.query(Case).order_by(Case.id))

    @property
    def case(self) -> Case:
        return self.cases[-1]

    @property
    def states(self) -> list[CaseState]:
        return [case.state for case in self.cases]

    def events(self, case_id: int) -> list[str]:
        with self.database.reading() as tx:
            return [entry.event for entry in trail_of(tx, case_id)]

    def finish(self, state: CaseState, **fields: Any) -> None:
        """As if the other processes had brought the newest case to this state."""
        with self.database.transaction() as tx:
            case = tx.query(Case).order_by(Case.id.desc()).limit(1).one()
            case.state = state
            for name, value in fields.items():
                setattr(case, name, value)


@pytest.fixture
def bench(tmp_path: Path, database: Database, spool: Spool) -> Bench:
    tables = {"intake": {"series_quiet_s": QUIET_S, "incomplete_wait_s": WAIT_S}}
    return Bench(make_settings(tmp_path, tables), database, spool)


Series = Callable[..., list[Path]]


@pytest.fixture
def ct(tmp_path: Path) -> Series:
    """Makes series in folders of their own."""
    made: list[int] = []

    def _make(**options: Any) -> list[Path]:
        made.append(1)
        return make_ct_series(tmp_path / f"ct{len(made)}", **{"slices": 6, **options})

    return _make


def test_a_quiet_series_without_a_gap_is_queued_for_its_protocol(bench: Bench, ct: Series) -> None:
    arrive_all(bench.spool, ct())
    bench.sweep_at(0)
    bench.sweep_at(QUIET_S - 0.001)
    assert bench.case.state is CaseState.RECEIVING
    bench.sweep_at(QUIET_S)
    assert (bench.case.state, bench.case.protocol, bench.case.model) == (CaseState.QUEUED, "bones", "thresholds")
    assert bench.events(1) == ["case_opened", "slices_received", "series_complete", "protocol_chosen"]


def test_every_new_slice_starts_the_quiet_time_again(bench: Bench, ct: Series) -> None:
    paths = ct()
    for count, path in enumerate(paths):
        arrive(bench.spool, path)
        bench.sweep_at(20.0 * count)
    last_s = 20.0 * (len(paths) - 1)
    bench.sweep_at(last_s + QUIET_S - 0.001)
    assert bench.case.state is CaseState.RECEIVING
    bench.sweep_at(last_s + QUIET_S)
    assert bench.case.state is CaseState.QUEUED


def test_a_series_with_a_gap_waits_says_why_and_is_refused_in_the_end(bench: Bench, ct: Series) -> None:
    paths = ct()
    arrive_all(bench.spool, paths[:3] + paths[4:])
    bench.sweep_at(0)
    bench.sweep_at(QUIET_S)
    assert (bench.case.state, bench.case.reason) == (CaseState.INCOMPLETE, "slice_missing")
    assert "1 slice is missing" in (bench.case.sentence or "")
    bench.sweep_at(QUIET_S + WAIT_S - 0.001)
    assert bench.case.state is CaseState.INCOMPLETE
    bench.sweep_at(QUIET_S + WAIT_S)
    assert (bench.case.state, bench.case.reason) == (CaseState.REFUSED, "slice_missing")


def test_the_missing_slice_completes_the_series(bench: Bench, ct: Series) -> None:
    paths = ct()
    arrive_all(bench.spool, paths[:3] + paths[4:])
    bench.sweep_at(0)
    bench.sweep_at(QUIET_S)
    arrive(bench.spool, paths[3])
    bench.sweep_at(100)
    assert bench.case.state is CaseState.RECEIVING
    bench.sweep_at(100 + QUIET_S)
    assert (bench.case.state, bench.case.slices, bench.case.reason) == (CaseState.QUEUED, 6, None)
    assert bench.states == [CaseState.QUEUED], "still the first revision"


@pytest.mark.parametrize(
    ("mutation", "reason"),
    [
        (only_slice(2, ImagePositionPatient=["-185.044", "-311.319", "-809.0"]), "position_duplicate"),
        (only_slice(2, FrameOfReferenceUID="1.2.3.4"), "frame_of_reference_mixed"),
        (only_slice(2, PatientID="SOMEBODY-ELSE"), "patient_mixed"),
        (only_slice(2, StudyInstanceUID="1.2.3.4"), "study_mixed"),
        (only_slice(2, PixelSpacing=b"nan\\1.3"), "decimal_not_finite"),
        (only_slice(2, PixelData=b"\0" * 20), "pixels_truncated"),
        (only_slice(2, ImageOrientationPatient=None), "element_missing"),
        (all_slices(BodyPartExamined="HEAD"), "no_protocol"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_no_further_slice_can_cure_is_refused_at_once_with_its_reason(
    bench: Bench, ct: Series, mutation: Any, reason: str
) -> None:
    arrive_all(bench.spool, ct(mutate=mutation))
    bench.sweep_at(0)
    bench.sweep_at(QUIET_S)
    assert (bench.case.state, bench.case.reason) == (CaseState.REFUSED, reason)
    assert bench.case.sentence


def test_two_contents_under_one_uid_are_refused_as_a_conflict(bench: Bench, ct: Series) -> None:
    paths = ct()
    arrive_all(bench.spool, [*paths, ct(hu=sample_hu((6, 32, 40)) + 1)[3]])
    bench.sweep_at(0)
    bench.sweep_at(QUIET_S)
    assert (bench.case.state, bench.case.reason) == (CaseState.REFUSED, "instance_conflict")


def test_a_bad_series_does_not_hold_up_a_good_one(bench: Bench, ct: Series) -> None:
    arrive_all(bench.spool, ct(series="bad", mutate=only_slice(2, PixelSpacing=b"nan\\1.3")))
    arrive_all(bench.spool, ct(series="good"))
    bench.sweep_at(0)
    bench.sweep_at(QUIET_S)
    assert bench.states == [CaseState.REFUSED, CaseState.QUEUED]


def test_a_kept_slice_that_the_disk_lost_stops_its_own_series_only(bench: Bench, ct: Series) -> None:
    lost = arrive_all(bench.spool, ct(series="bad"))[2]
    arrive_all(bench.spool, ct(series="good"))
    bench.sweep_at(0)
    bench.spool.instance_path(lost.digest).unlink()
    bench.sweep_at(QUIET_S)
    bad, good = bench.cases
    assert good.state is CaseState.QUEUED
    assert bad.state is not CaseState.QUEUED
    assert bad.sentence


def test_what_the_listener_noted_becomes_part_of_the_trail(bench: Bench) -> None:
    bench.spool.leave_note("audit", {"event": "association_aborted", "source_ae": "CT1", "stored": 3})
    bench.sweep_at(0)
    with bench.database.reading() as tx:
        entry = trail_of_box(tx, limit=1)[0]
    assert entry.words == "the association from CT1 was aborted after 3 stored objects"
    assert entry.actor == "listener"
    assert list(bench.spool.notes("audit")) == []


@pytest.mark.parametrize("state", [CaseState.DELIVERED, CaseState.COMMITTED])
def test_a_delivered_series_that_comes_again_is_answered_with_the_same_result(
    bench: Bench, ct: Series, state: CaseState
) -> None:
    paths = ct()
    arrive_all(bench.spool, paths)
    bench.sweep_at(0)
    new_result(bench.database, 1, "2.25.42")
    new_delivery(bench.database, 1, state=DeliveryState.ACCEPTED, attempts=2)
    bench.finish(state)
    arrive_all(bench.spool, paths)
    bench.sweep_at(100)
    bench.sweep_at(100 + QUIET_S - 0.001)
    assert bench.states == [state], "as long as it may still be coming, nothing is sent"
    bench.sweep_at(100 + QUIET_S)
    assert bench.states == [CaseState.SENDING]
    assert bench.case.result_sop_instance_uid == "2.25.42"
    with bench.database.reading() as tx:
        delivery = tx.query(Delivery).one()
    assert (delivery.state, delivery.attempts) == (DeliveryState.PENDING, 0)
    bench.finish(CaseState.DELIVERED)
    bench.sweep_at(1000)
    assert bench.states == [CaseState.DELIVERED], "once is enough"


def test_slices_that_came_twice_before_the_series_was_complete_ask_for_no_second_answer(
    bench: Bench, ct: Series
) -> None:
    paths = ct()
    arrive_all(bench.spool, [*paths, *paths])
    bench.sweep_at(0)
    bench.finish(CaseState.DELIVERED)
    bench.sweep_at(1000)
    assert bench.states == [CaseState.DELIVERED]


def test_a_backlog_of_others_does_not_make_a_series_look_quiet(bench: Bench, ct: Series) -> None:
    first = ct(series="slow")
    arrive_all(bench.spool, first[:5])
    bench.sweep_at(0)
    arrive_all(bench.spool, ct(series="others", slices=100, rows=4, columns=4))
    late = arrive(bench.spool, first[5])
    bench.steady_s = 2 * QUIET_S
    assert bench.assembler.sweep(late.at + timedelta(seconds=QUIET_S + 1)) == 100, (
        "it came before the quiet time was over"
    )
    assert bench.cases[0].state is CaseState.RECEIVING, "its last slice waits behind the others"
    bench.sweep_at(2 * QUIET_S)
    bench.sweep_at(3 * QUIET_S)
    assert (bench.cases[0].state, bench.cases[0].slices) == (CaseState.QUEUED, 6)


@pytest.mark.parametrize("state", [CaseState.REFUSED, CaseState.FAILED])
def test_a_refused_series_that_comes_again_is_looked_at_afresh(bench: Bench, ct: Series, state: CaseState) -> None:
    paths = ct()
    arrive_all(bench.spool, paths)
    bench.sweep_at(0)
    bench.finish(state)
    arrive_all(bench.spool, paths)
    bench.sweep_at(100)
    bench.sweep_at(100 + QUIET_S)
    assert bench.states == [state, CaseState.RECEIVING]
    bench.sweep_at(100 + 2 * QUIET_S)
    assert bench.states == [state, CaseState.QUEUED]
    assert bench.case.slices == 6


def test_a_refused_series_that_comes_again_whole_is_one_new_revision(bench: Bench, ct: Series) -> None:
    paths = ct()
    arrive_all(bench.spool, paths[:3] + paths[4:])
    bench.sweep_at(0)
    bench.sweep_at(QUIET_S)
    bench.sweep_at(QUIET_S + WAIT_S)
    assert bench.states == [CaseState.REFUSED]
    arrive_all(bench.spool, paths)  # known slices come before the one that was missing
    bench.sweep_at(1000)
    for second in range(1000, 1200, 10):
        bench.sweep_at(second)
    assert bench.states == [CaseState.REFUSED, CaseState.QUEUED]
    assert bench.case.slices == 6


def test_a_delivered_series_that_comes_again_with_one_slice_more_is_not_answered_with_the_old_result(
    bench: Bench, ct: Series
) -> None:
    paths = ct()
    arrive_all(bench.spool, paths[:5])
    bench.sweep_at(0)
    new_result(bench.database, 1, "2.25.42")
    new_delivery(bench.database, 1, state=DeliveryState.ACCEPTED)
    bench.finish(CaseState.DELIVERED)
    arrive_all(bench.spool, paths)
    for second in range(100, 200, 10):
        bench.sweep_at(second)
    assert bench.states == [CaseState.DELIVERED, CaseState.QUEUED]


def test_the_protocol_sees_who_sent_the_series(tmp_path: Path, database: Database, spool: Spool, ct: Series) -> None:
    for_ct2 = {**BONES, "name": "for-ct2", "match": {"calling_ae": ["CT2"]}}
    settings = make_settings(tmp_path, protocols={"for-ct2": for_ct2})
    bench = Bench(settings, database, spool)
    for source in ("CT1", "CT2"):
        for path in ct(series=source):
            arrive(spool, path, source)
    bench.sweep_at(0)
    bench.sweep_at(QUIET_S)
    assert [case.protocol for case in bench.cases] == [None, "for-ct2"]
    assert bench.cases[0].reason == "no_protocol"


@pytest.mark.parametrize("days", [1, -1])
def test_a_series_is_neither_early_nor_late_when_somebody_sets_the_clock(bench: Bench, ct: Series, days: float) -> None:
    paths = ct()
    arrive_all(bench.spool, paths[:4])
    bench.sweep_at(0)
    bench.clock_ahead_s = days * 86_400
    bench.sweep_at(QUIET_S - 1)
    assert bench.case.state is CaseState.RECEIVING, "not early"
    arrive_all(bench.spool, paths[4:])
    bench.sweep_at(QUIET_S)
    bench.clock_ahead_s = 0.0
    bench.sweep_at(2 * QUIET_S - 0.001)
    assert bench.case.state is CaseState.RECEIVING
    bench.sweep_at(2 * QUIET_S)
    assert bench.case.state is CaseState.QUEUED, "not late"


@pytest.mark.parametrize("days", [1, -1])
def test_missing_slices_are_waited_for_as_long_when_somebody_sets_the_clock(
    bench: Bench, ct: Series, days: float
) -> None:
    paths = ct()
    arrive_all(bench.spool, paths[:3] + paths[4:])
    bench.sweep_at(0)
    bench.sweep_at(QUIET_S)
    bench.clock_ahead_s = days * 86_400
    bench.sweep_at(QUIET_S + WAIT_S - 0.001)
    assert bench.case.state is CaseState.INCOMPLETE
    bench.sweep_at(QUIET_S + WAIT_S)
    assert bench.case.state is CaseState.REFUSED


@pytest.mark.parametrize("days", [1, -1])
def test_a_new_process_waits_the_quiet_time_whatever_its_clock_says(bench: Bench, ct: Series, days: float) -> None:
    arrive_all(bench.spool, ct())
    bench.sweep_at(0)
    bench.restart()
    bench.clock_ahead_s = days * 86_400
    bench.sweep_at(10)
    bench.sweep_at(10 + QUIET_S - 0.001)
    assert bench.case.state is CaseState.RECEIVING
    bench.sweep_at(10 + QUIET_S)
    assert bench.case.state is CaseState.QUEUED


JANE = Operator("jane", NOON, "the scan was cut short on purpose")


def _act(bench: Bench, what: Callable[[Transaction, Case, Operator], object]) -> None:
    with bench.database.transaction() as tx:
        case = queries.case_by_id(tx, bench.case.id)
        assert case is not None
        what(tx, case, JANE)


def test_an_operator_may_have_a_series_taken_as_complete_before_it_was_quiet(bench: Bench, ct: Series) -> None:
    arrive_all(bench.spool, ct())
    bench.sweep_at(0)
    _act(bench, ask_to_complete)
    bench.sweep_at(1)
    assert (bench.case.state, bench.case.forced_by) == (CaseState.QUEUED, None)
    with bench.database.reading() as tx:
        forced = next(entry for entry in trail_of(tx, 1) if entry.event == "completion_forced")
    assert forced.actor == "operator:jane"
    assert forced.words.startswith(
        "taken as complete, as jane asked (the scan was cut short on purpose): 6 slices over"
    )


def test_nobody_can_have_a_series_with_a_gap_taken_as_complete(bench: Bench, ct: Series) -> None:
    paths = ct()
    arrive_all(bench.spool, paths[:3] + paths[4:])
    bench.sweep_at(0)
    _act(bench, ask_to_complete)
    bench.sweep_at(1)
    assert (bench.case.state, bench.case.forced_by) == (CaseState.RECEIVING, None)
    with bench.database.reading() as tx:
        refused = next(entry for entry in trail_of(tx, 1) if entry.event == "completion_not_forced")
    assert refused.words.startswith("cannot be taken as complete, as jane asked: gap of 6.00 mm after slice 3")


@pytest.mark.parametrize("stop", [park, cancel])
def test_slices_of_a_series_that_was_stopped_while_it_came_are_kept_with_it_and_wait(
    bench: Bench, ct: Series, stop: Callable[[Transaction, Case, Operator], None]
) -> None:
    paths = ct()
    arrive_all(bench.spool, paths[:3])
    bench.sweep_at(0)
    _act(bench, stop)
    stopped = bench.case.state
    arrive_all(bench.spool, paths[3:])
    bench.sweep_at(1)
    bench.sweep_at(2 * WAIT_S)
    assert (bench.states, bench.case.slices) == ([stopped], 6)
    _act(bench, retry)
    bench.sweep_at(2 * WAIT_S)
    bench.sweep_at(2 * WAIT_S + QUIET_S)
    assert bench.states == [CaseState.QUEUED]


def test_a_parked_case_stays_parked_though_its_series_is_sent_again(bench: Bench, ct: Series) -> None:
    paths = ct()
    arrive_all(bench.spool, paths)
    bench.sweep_at(0)
    bench.sweep_at(QUIET_S)
    _act(bench, park)
    arrive_all(bench.spool, paths)
    bench.sweep_at(2 * QUIET_S)
    bench.sweep_at(4 * QUIET_S)
    assert bench.states == [CaseState.FAILED]
