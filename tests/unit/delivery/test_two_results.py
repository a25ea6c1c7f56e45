"""A structure set and a Segmentation of one case on their way: each has its own fate, the case has one."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from appliance.audit.trail import trail_of
from appliance.delivery.outbox import Outbox
from appliance.records import Database, queries
from appliance.records.tables import Case, CaseState, DeliveryState, ResultKind
from appliance.spool import Spool
from tests.support.config_folder import make_settings
from tests.support.fake_pacs import Commitment, FakePacs, forget, status, store
from tests.support.hands import Hands
from tests.support.rows import NOON, new_case, new_delivery, read_case
from tests.support.segmentations import small_segmentation
from tests.support.structure_sets import small_structure_set

RTSTRUCT, SEG = "2.25.42", "2.25.43"
WAIT_S = 120.0


@dataclass
class Bench:
    """An outbox with one case of two results, on its way to one PACS that reports on the association of the request."""

    outbox: Outbox
    database: Database
    spool: Spool
    pacs: FakePacs
    hands: Hands
    case_id: int

    @property
    def case(self) -> Case:
        return read_case(self.database, self.case_id)

    def states(self) -> dict[ResultKind, DeliveryState]:
        with self.database.reading() as tx:
            return {each.result.kind: each.state for each in queries.deliveries_of(tx, self.case)}

    def words(self) -> list[str]:
        with self.database.reading() as tx:
            return [entry.words for entry in trail_of(tx, self.case_id)]

    def sweep(self, *seconds: float) -> None:
        for second in seconds:
            self.hands.sweep(self.outbox, _at(second))
            self.pacs.finish_reports()


Build = Callable[..., Bench]


@pytest.fixture
def build(
    tmp_path: Path, database: Database, spool: Spool, stop_meanwhile: Callable[[Callable[[], None]], None]
) -> Iterator[Build]:
    started: list[FakePacs] = []

    def _build(commitment: Commitment | None = None, **pacs_changes: object) -> Bench:
        pacs = FakePacs(commitment=commitment or Commitment.ABSENT)
        for name, value in pacs_changes.items():
            setattr(pacs, name, value)
        tables = {"delivery": {"retry_first_s": 5.0, "commitment_wait_s": WAIT_S, "network_timeout_s": 0.3}}
        peers = {"pacs": pacs.peer(storage_commitment=commitment is not None)}
        settings = make_settings(tmp_path, tables, peers=peers)
        spool.keep_result(f"{RTSTRUCT}.dcm", small_structure_set(RTSTRUCT))
        spool.keep_result(f"{SEG}.dcm", small_segmentation(SEG))
        case_id = new_case(database, CaseState.SENDING, {ResultKind.RTSTRUCT: RTSTRUCT, ResultKind.SEG: SEG}, spool)
        for kind in ResultKind:
            new_delivery(database, case_id, kind=kind)
        pacs.start()
        started.append(pacs)
        hands = Hands()
        outbox = Outbox(settings, database, spool, hands.pacing(5.0, 60.0))
        return Bench(outbox, database, spool, pacs, hands, case_id)

    yield _build
    for pacs in started:
        stop_meanwhile(pacs.stop)


def _at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def test_both_are_sent_once_the_structure_set_first(build: Build) -> None:
    bench = build()
    bench.sweep(0, 1, 3600)
    assert bench.pacs.received == [RTSTRUCT, SEG]
    assert bench.pacs.structure_set(SEG).SOPInstanceUID == SEG
    assert bench.case.state is CaseState.DELIVERED
    assert bench.words() == [
        "pacs accepted the structure set (C-STORE status 0x0000)",
        "pacs accepted the segmentation (C-STORE status 0x0000)",
        "delivered to pacs",
    ]


def test_a_case_is_delivered_when_both_are_accepted_and_only_what_was_not_is_sent_again(build: Build) -> None:
    bench = build()
    bench.pacs.play([store, status(0xA700)])
    bench.sweep(0)
    assert bench.states() == {ResultKind.RTSTRUCT: DeliveryState.ACCEPTED, ResultKind.SEG: DeliveryState.PENDING}
    assert bench.case.state is CaseState.SENDING
    bench.sweep(5)
    assert bench.pacs.received == [RTSTRUCT, SEG, SEG]
    assert bench.case.state is CaseState.DELIVERED


def test_a_case_is_committed_when_both_are(build: Build) -> None:
    bench = build(Commitment.AT_ONCE)
    bench.sweep(0, 1, 2)
    assert [asked.sop_instance_uids for asked in bench.pacs.asked] == [(RTSTRUCT,), (SEG,)]
    assert len({asked.transaction_uid for asked in bench.pacs.asked}) == 2
    assert bench.case.state is CaseState.COMMITTED
    assert "pacs committed to keep the segmentation" in bench.words()


def test_a_segmentation_that_was_not_kept_is_found_out_and_it_alone_is_sent_again(build: Build) -> None:
    bench = build(Commitment.AT_ONCE)
    bench.pacs.play([store, forget])
    bench.sweep(0, 1, 2)
    assert bench.states() == {ResultKind.RTSTRUCT: DeliveryState.COMMITTED, ResultKind.SEG: DeliveryState.PENDING}
    assert bench.case.state is CaseState.DELIVERED
    sentence = "its report does not list the segmentation as kept; the segmentation is sent again"
    assert f"pacs did not commit: {sentence}" in bench.words()
    bench.sweep(3600, 3601, 3602)
    assert bench.pacs.received == [RTSTRUCT, SEG, SEG]
    assert bench.case.state is CaseState.COMMITTED


def test_a_pacs_that_takes_no_segmentations_gets_the_structure_set_and_the_case_is_committed(build: Build) -> None:
    bench = build(Commitment.AT_ONCE, takes_segmentations=False)
    bench.sweep(0, 1, 2, 3600)
    assert bench.pacs.received == [RTSTRUCT]
    assert bench.states() == {ResultKind.RTSTRUCT: DeliveryState.COMMITTED, ResultKind.SEG: DeliveryState.REFUSED}
    assert bench.case.state is CaseState.COMMITTED
    refusal = "it does not accept Segmentation Storage; enable that at the destination"
    assert f"pacs will not take the segmentation: {refusal}" in bench.words()
    assert [asked.sop_instance_uids for asked in bench.pacs.asked] == [(RTSTRUCT,)]


@pytest.mark.parametrize("code", [0xC000, 0xA900, 0x0122])
def test_a_pacs_that_refuses_the_content_of_the_segmentation_has_the_structure_set_nevertheless(
    build: Build, code: int
) -> None:
    bench = build()
    bench.pacs.play([store, status(code)])
    bench.sweep(0, 3600)
    assert bench.pacs.received == [RTSTRUCT, SEG]
    assert bench.case.state is CaseState.DELIVERED


def test_a_pacs_that_refuses_the_structure_set_has_not_got_the_result(build: Build) -> None:
    bench = build(takes_structure_sets=False)
    bench.sweep(0, 1)
    assert bench.pacs.received == [SEG]
    assert (bench.case.state, bench.case.reason) == (CaseState.FAILED, "destination_refuses")


def test_a_late_answer_counts_for_the_object_that_was_asked_about(build: Build) -> None:
    bench = build(Commitment.SILENT)
    bench.sweep(0, 1, 2 + WAIT_S)
    asked = {each.sop_instance_uids[0]: each for each in reversed(bench.pacs.asked)}  # the first request for each
    assert len(bench.pacs.asked) == 4
    report = {"transaction_uid": asked[SEG].transaction_uid, "kept": [SEG], "lost": []}
    bench.spool.leave_note("commitment", report)
    bench.sweep(3 + WAIT_S)
    assert bench.states() == {ResultKind.RTSTRUCT: DeliveryState.ACCEPTED, ResultKind.SEG: DeliveryState.COMMITTED}
    assert bench.case.state is CaseState.DELIVERED


def test_a_series_that_is_sent_again_sends_both_again_under_the_same_uids(build: Build) -> None:
    bench = build(takes_segmentations=True)
    bench.sweep(0)
    with bench.database.transaction() as tx:
        case = tx.get_one(Case, bench.case_id)
        case.state = CaseState.SENDING
        destinations = [delivery.destination for delivery in queries.deliveries_of(tx, case)]
        queries.put_in_outbox(tx, case, destinations, _at(100))
    bench.sweep(100)
    assert bench.pacs.received == [RTSTRUCT, SEG, RTSTRUCT, SEG]
    assert sorted(bench.pacs.stored) == [RTSTRUCT, SEG]
    assert bench.case.state is CaseState.DELIVERED
