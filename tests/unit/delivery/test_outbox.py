"""The outbox against a PACS that misbehaves: nothing is lost, nothing is doubled, nobody is hammered."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from appliance.audit.trail import trail_of
from appliance.delivery.outbox import Outbox
from appliance.records import Database
from appliance.records.tables import Case, CaseState, Delivery, DeliveryState, ResultKind
from appliance.spool import Spool
from tests.support.config_folder import make_settings
from tests.support.fake_pacs import Answer, Commitment, FakePacs, abort, forget, hang, status, store
from tests.support.free_ports import free_port
from tests.support.hands import Hands
from tests.support.listening import ListenerBeside
from tests.support.rows import NOON, new_case, new_delivery, read_case, read_delivery
from tests.support.structure_sets import small_structure_set
from tests.support.waiting import wait_until

FIRST_S, CAP_S, COMMITMENT_S = 5.0, 60.0, 120.0
RESULT = "2.25.42"


@dataclass
class Bench:
    """An outbox with one finished case, on its way to one PACS."""

    outbox: Outbox
    database: Database
    spool: Spool
    pacs: FakePacs
    listener: ListenerBeside
    hands: Hands
    case_id: int
    delivery_id: int

    def sweep(self, now: datetime) -> None:
        self.hands.sweep(self.outbox, now)

    @property
    def case(self) -> Case:
        return read_case(self.database, self.case_id)

    @property
    def delivery(self) -> Delivery:
        return read_delivery(self.database, self.delivery_id)

    @property
    def events(self) -> list[str]:
        with self.database.reading() as tx:
            return [entry.event for entry in trail_of(tx, self.case_id)]

    def note_comes(self) -> None:
        wait_until(lambda: list(self.spool.notes("commitment")), 5, "a report from the PACS")


Build = Callable[..., Bench]


def _finished_case(database: Database, spool: Spool, uid: str = RESULT, **fields: Any) -> int:
    spool.keep_result(f"{uid}.dcm", small_structure_set(uid))
    return new_case(database, CaseState.SENDING, {ResultKind.RTSTRUCT: uid}, spool, **fields)


@pytest.fixture
def build(
    tmp_path: Path, database: Database, spool: Spool, stop_meanwhile: Callable[[Callable[[], None]], None]
) -> Iterator[Build]:
    """Makes the bench, with a PACS that deals with commitment as told, or offers none."""
    started: list[Any] = []

    def _build(commitment: Commitment | None = None, **pacs_changes: Any) -> Bench:
        port = free_port()
        pacs = FakePacs(commitment=commitment or Commitment.ABSENT, appliance=("DELINEATE", port))
        for name, value in pacs_changes.items():
            setattr(pacs, name, value)
        delivery = {
            "retry_first_s": FIRST_S,
            "retry_cap_s": CAP_S,
            "commitment_wait_s": COMMITMENT_S,
            "network_timeout_s": 2.0,
        }
        settings = make_settings(
            tmp_path,
            {"delivery": delivery, "intake": {"port": port, "free_space_reserve_mb": 0, "slots": 0}},
            peers={"pacs": pacs.peer(storage_commitment=commitment is not None)},
        )
        listener = ListenerBeside(settings, spool)
        case_id, hands = _finished_case(database, spool), Hands()
        outbox = Outbox(settings, database, spool, hands.pacing(FIRST_S, CAP_S))
        delivery_id = new_delivery(database, case_id)
        bench = Bench(outbox, database, spool, pacs, listener, hands, case_id, delivery_id)
        pacs.start()
        started.append(pacs)
        if commitment in {Commitment.ON_ITS_OWN, Commitment.DENIED}:
            listener.start()
            started.append(listener)
        return bench

    yield _build
    for one in started:
        stop_meanwhile(one.stop)


def _at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def test_a_result_is_sent_once_and_the_case_is_delivered(build: Build) -> None:
    bench = build()
    for second in range(3):
        bench.sweep(_at(second))
    assert bench.pacs.received == [RESULT]
    assert bench.pacs.structure_set(RESULT).SOPInstanceUID == RESULT
    assert (bench.case.state, bench.delivery.state) == (CaseState.DELIVERED, DeliveryState.ACCEPTED)
    assert bench.events == ["delivery_accepted", "case_delivered"]


def test_a_pacs_that_is_down_is_waited_for_longer_and_longer_up_to_the_cap(build: Build) -> None:
    bench = build()
    bench.pacs.stop()
    at_s, waits_s = 0.0, []
    for _ in range(6):
        bench.sweep(_at(at_s))
        wait_s = (bench.delivery.next_try_at - _at(at_s)).total_seconds()
        bench.sweep(_at(at_s + wait_s - 0.001))  # too early: nothing happens
        waits_s.append(wait_s)
        at_s += wait_s
    assert waits_s == [5, 10, 20, 40, 60, 60]
    assert bench.events == ["delivery_tried"] * 6
    assert bench.delivery.sentence == f"nobody answers at 127.0.0.1:{bench.pacs.port} as FAKEPACS"
    assert bench.case.state is CaseState.SENDING


def test_a_pacs_that_comes_back_gets_the_result_once(build: Build) -> None:
    bench = build()
    bench.pacs.stop()
    bench.sweep(NOON)
    bench.pacs.start()
    bench.sweep(_at(FIRST_S))
    bench.sweep(_at(3600))
    assert bench.pacs.received == [RESULT]
    assert bench.case.state is CaseState.DELIVERED
    assert bench.delivery.sentence is None


def test_a_pacs_that_does_not_know_us_is_named_as_such(build: Build) -> None:
    bench = build(known_callers=["SOMEBODY"])
    bench.sweep(NOON)
    assert bench.delivery.sentence == "it rejects associations from DELINEATE; check that it knows this AE title"
    assert bench.delivery.state is DeliveryState.PENDING


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (status(0xA700), "C-STORE was answered 0xA700 (out of resources)"),
        (status(0x0110), "C-STORE was answered 0x0110 (processing failure)"),
        (abort, "C-STORE was answered by nothing: it broke off"),
        (hang, "C-STORE was answered by nothing: it broke off, or took longer than the time limit"),
    ],
    ids=["out of resources", "processing failure", "abort", "hang"],
)
def test_what_may_pass_is_tried_again(build: Build, answer: Answer, words: str) -> None:
    bench = build()
    bench.pacs.play([answer])
    bench.sweep(NOON)
    assert bench.delivery.state is DeliveryState.PENDING
    assert bench.delivery.next_try_at == _at(FIRST_S)
    assert words in (bench.delivery.sentence or "")
    bench.sweep(_at(FIRST_S))
    assert bench.case.state is CaseState.DELIVERED
    assert list(bench.pacs.stored) == [RESULT]


@pytest.mark.parametrize("code", [0xC000, 0xA900, 0x0122])
def test_what_the_pacs_will_never_take_is_parked_with_its_answer(build: Build, code: int) -> None:
    bench = build()
    bench.pacs.play([status(code)])
    bench.sweep(NOON)
    bench.sweep(_at(3600))
    assert bench.pacs.received == [RESULT]
    assert (bench.case.state, bench.case.reason) == (CaseState.FAILED, "destination_refuses")
    assert f"0x{code:04X}" in (bench.case.sentence or "")
    assert bench.events == ["delivery_refused", "case_failed"]


def test_a_pacs_without_structure_sets_is_told_apart_from_one_that_is_down(build: Build) -> None:
    bench = build(takes_structure_sets=False)
    bench.sweep(NOON)
    assert bench.case.state is CaseState.FAILED
    assert "it does not accept RT Structure Set Storage; enable that at the destination" in (bench.case.sentence or "")


def test_a_warning_means_kept(build: Build) -> None:
    bench = build()
    bench.pacs.play([status(0xB000)])
    bench.sweep(NOON)
    assert bench.case.state is CaseState.DELIVERED
    with bench.database.reading() as tx:
        assert "0xB000" in trail_of(tx, bench.case_id)[0].words


def test_a_pacs_that_has_the_result_already_is_not_sent_it_again_and_again(build: Build) -> None:
    bench = build()
    bench.pacs.play([status(0x0111)])
    bench.sweep(NOON)
    assert bench.case.state is CaseState.DELIVERED
    with bench.database.reading() as tx:
        assert "0x0111" in trail_of(tx, bench.case_id)[0].words


def test_a_case_is_committed_when_the_pacs_says_so_on_an_association_of_its_own(build: Build) -> None:
    bench = build(Commitment.ON_ITS_OWN)
    bench.sweep(NOON)
    assert bench.case.state is CaseState.DELIVERED, "accepted is not yet committed"
    bench.sweep(_at(1))
    bench.note_comes()
    bench.sweep(_at(2))
    assert (bench.case.state, bench.delivery.state) == (CaseState.COMMITTED, DeliveryState.COMMITTED)
    assert bench.events == [
        "delivery_accepted",
        "case_delivered",
        "commitment_requested",
        "commitment_reported",
        "case_committed",
    ]
    bench.sweep(_at(3600))
    assert len(bench.pacs.asked) == 1
    assert list(bench.spool.notes("commitment")) == []


def test_a_report_on_the_association_of_the_request_counts_as_well(build: Build) -> None:
    bench = build(Commitment.AT_ONCE)
    bench.sweep(NOON)
    bench.sweep(_at(1))
    bench.note_comes()
    bench.sweep(_at(2))
    assert bench.case.state is CaseState.COMMITTED


def test_a_pacs_that_said_success_but_kept_nothing_is_found_out_and_sent_it_again(build: Build) -> None:
    bench = build(Commitment.ON_ITS_OWN)
    bench.pacs.play([forget])
    bench.sweep(NOON)
    bench.sweep(_at(1))
    bench.note_comes()
    bench.sweep(_at(2))
    assert "commitment_failed" in bench.events
    assert bench.case.state is CaseState.DELIVERED
    bench.sweep(_at(3600))
    bench.sweep(_at(3601))
    bench.note_comes()
    bench.sweep(_at(3602))
    assert bench.pacs.received == [RESULT, RESULT]
    assert bench.case.state is CaseState.COMMITTED


def test_a_pacs_that_never_commits_is_not_sent_the_same_again_and_again(build: Build) -> None:
    bench = build(Commitment.DENIED)
    sent_at_s: list[int] = []
    for second in (0, 1, 2, 6, 7, 8, 9, 17, 18, 19, 20, 38, 39, 40):
        before = len(bench.pacs.received)
        bench.sweep(_at(second))
        bench.pacs.finish_reports()
        sent_at_s += [second] * (len(bench.pacs.received) - before)
    # denied two seconds after each sending, then 5, 10 and 20 s of pause
    assert sent_at_s == [0, 7, 19]
    assert bench.case.state is CaseState.DELIVERED


def test_a_pacs_that_does_not_report_is_asked_again_later(build: Build) -> None:
    bench = build(Commitment.SILENT)
    bench.sweep(NOON)
    for second in (1.0, 2.0, COMMITMENT_S, COMMITMENT_S + 1.0, COMMITMENT_S + 2.0):
        bench.sweep(_at(second))
    assert len(bench.pacs.asked) == 2
    assert len({asked.transaction_uid for asked in bench.pacs.asked}) == 2
    assert {asked.sop_instance_uids for asked in bench.pacs.asked} == {(RESULT,)}
    assert bench.pacs.received == [RESULT]
    assert bench.case.state is CaseState.DELIVERED


def test_a_pacs_that_takes_longer_than_we_wait_can_still_commit(build: Build) -> None:
    bench = build(Commitment.SILENT)
    bench.sweep(NOON)
    bench.sweep(_at(1))
    bench.sweep(_at(1 + COMMITMENT_S))
    first = bench.pacs.asked[0]
    fields = {"transaction_uid": first.transaction_uid, "kept": list(first.sop_instance_uids), "lost": []}
    bench.spool.leave_note("commitment", fields)
    bench.sweep(_at(2 + COMMITMENT_S))
    assert bench.case.state is CaseState.COMMITTED


@pytest.mark.parametrize(
    ("commitment", "words"),
    [
        (Commitment.FAILING, "the request for storage commitment was answered 0x0110"),
        (Commitment.ABSENT, "it does not offer storage commitment; turn storage_commitment off in peers.toml"),
    ],
)
def test_a_pacs_that_cannot_be_asked_leaves_the_case_delivered(
    build: Build, commitment: Commitment, words: str
) -> None:
    bench = build(commitment)
    bench.sweep(NOON)
    bench.sweep(_at(1))
    assert words in (bench.delivery.sentence or "")
    assert bench.case.state is CaseState.DELIVERED
    assert bench.delivery.next_try_at == _at(1 + FIRST_S)
    assert bench.pacs.received == [RESULT]


def test_a_report_about_something_else_changes_nothing(build: Build) -> None:
    bench = build(Commitment.SILENT)
    bench.sweep(NOON)
    for fields in (
        {"transaction_uid": "2.25.1", "kept": ["2.25.99"], "lost": []},
        {"transaction_uid": "", "kept": [], "lost": []},
    ):
        bench.spool.leave_note("commitment", fields)
    bench.sweep(_at(1))
    assert bench.case.state is CaseState.DELIVERED
    assert list(bench.spool.notes("commitment")) == []


def test_one_pacs_that_is_down_does_not_keep_the_result_from_another(
    tmp_path: Path, database: Database, spool: Spool
) -> None:
    case_id = _finished_case(database, spool)
    for destination in ("down", "up"):
        new_delivery(database, case_id, destination)
    with FakePacs() as up:
        peers = {"up": up.peer(), "down": up.peer(port=free_port())}
        outbox = Outbox(make_settings(tmp_path, peers=peers, protocols={}), database, spool)
        outbox.sweep(NOON)
        assert up.received == [RESULT]
        assert read_case(database, case_id).state is CaseState.SENDING, "delivered means: everywhere"


def test_a_pacs_that_hangs_costs_one_time_limit_for_each_round_not_one_for_each_case(
    tmp_path: Path, database: Database, spool: Spool
) -> None:
    with FakePacs() as slow, FakePacs() as up:
        slow.play([hang] * 10)
        for number in range(5):
            case_id = _finished_case(database, spool, f"2.25.{number}", series_instance_uid=f"1.2.{number}")
            new_delivery(database, case_id, "slow")
        last_id = _finished_case(database, spool, "2.25.77", series_instance_uid="1.2.77")
        new_delivery(database, last_id, "up")
        peers = {"slow": slow.peer(), "up": up.peer()}
        tables = {"delivery": {"network_timeout_s": 0.3}}
        Outbox(make_settings(tmp_path, tables, peers=peers, protocols={}), database, spool).sweep(NOON)
        assert up.received == ["2.25.77"]
        assert len(slow.received) == 1


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b"x" + path.read_bytes()[1:])])
def test_a_result_whose_file_is_gone_or_damaged_is_made_again_and_stops_no_other(
    build: Build, harm: Callable[[Path], object]
) -> None:
    bench = build()
    harm(bench.spool.root / "results" / f"{RESULT}.dcm")
    other_id = _finished_case(bench.database, bench.spool, "2.25.43", series_instance_uid="1.2.4")
    new_delivery(bench.database, other_id)
    for second in range(2):
        bench.sweep(_at(second))
    assert read_case(bench.database, other_id).state is CaseState.DELIVERED
    assert bench.case.state is CaseState.QUEUED
    assert bench.pacs.received == ["2.25.43"]


def test_a_result_that_is_damaged_again_and_again_is_parked(build: Build) -> None:
    bench = build()
    (bench.spool.root / "results" / f"{RESULT}.dcm").unlink()
    with bench.database.transaction() as tx:
        tx.get_one(Case, bench.case_id).attempts = 3
    bench.sweep(NOON)
    assert (bench.case.state, bench.case.reason) == (CaseState.FAILED, "result_invalid")


def test_a_delivered_result_that_is_damaged_before_it_is_sent_again_says_so(build: Build) -> None:
    bench = build()
    (bench.spool.root / "results" / f"{RESULT}.dcm").unlink()
    with bench.database.transaction() as tx:
        tx.get_one(Case, bench.case_id).state = CaseState.DELIVERED
    bench.sweep(NOON)
    assert "is damaged or gone; restore it from a backup" in (bench.delivery.sentence or "")


def test_a_destination_that_was_taken_out_of_the_configuration_is_named(
    tmp_path: Path, database: Database, spool: Spool
) -> None:
    case_id = _finished_case(database, spool)
    delivery_id = new_delivery(database, case_id, "old")
    Outbox(make_settings(tmp_path), database, spool).sweep(NOON)
    delivery = read_delivery(database, delivery_id)
    assert delivery.sentence == "it is no longer in peers.toml; restore it there"
    assert delivery.state is DeliveryState.PENDING


def test_a_case_that_was_superseded_is_not_sent(build: Build) -> None:
    bench = build()
    with bench.database.transaction() as tx:
        case = tx.get(Case, bench.case_id)
        assert case is not None
        case.state = CaseState.SUPERSEDED
    bench.sweep(NOON)
    assert bench.pacs.associations == 0


def test_a_crash_after_sending_sends_the_same_object_under_the_same_uid(build: Build) -> None:
    bench = build()
    bench.sweep(NOON)
    with bench.database.transaction() as tx:  # as if the process had died before it could write this down
        case, delivery = tx.get(Case, bench.case_id), tx.get(Delivery, bench.delivery_id)
        assert case is not None
        assert delivery is not None
        case.state, delivery.state, delivery.next_try_at = CaseState.SENDING, DeliveryState.PENDING, NOON
    bench.sweep(_at(1))
    assert bench.pacs.received == [RESULT, RESULT]
    assert list(bench.pacs.stored) == [RESULT]
    assert bench.case.state is CaseState.DELIVERED


def test_nothing_is_sent_before_its_time(build: Build) -> None:
    bench = build()
    bench.sweep(_at(-0.001))
    assert bench.pacs.associations == 0


def test_every_destination_that_offers_commitment_must_commit(tmp_path: Path, database: Database, spool: Spool) -> None:
    case_id = _finished_case(database, spool)
    first_id, second_id = (new_delivery(database, case_id, name) for name in ("a", "b"))
    with FakePacs("A", commitment=Commitment.SILENT) as a, FakePacs("B", commitment=Commitment.SILENT) as b:
        peers = {"a": a.peer(storage_commitment=True), "b": b.peer(storage_commitment=True)}
        outbox = Outbox(make_settings(tmp_path, peers=peers, protocols={}), database, spool)
        outbox.sweep(NOON)
        outbox.sweep(_at(1))
        for pacs, state in ((a, CaseState.DELIVERED), (b, CaseState.COMMITTED)):
            fields = {"transaction_uid": pacs.asked[0].transaction_uid, "kept": [RESULT], "lost": []}
            spool.leave_note("commitment", fields)
            outbox.sweep(_at(2))
            assert read_case(database, case_id).state is state
    assert {read_delivery(database, each).state for each in (first_id, second_id)} == {DeliveryState.COMMITTED}


def test_stored_means_stored_by_the_pacs_itself(build: Build) -> None:
    """The fake keeps its own promises: what it answers with success without `forget` can be read back."""
    bench = build()
    bench.pacs.play([store])
    bench.sweep(NOON)
    assert bench.pacs.stored.keys() == {RESULT}
