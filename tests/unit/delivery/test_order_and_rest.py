"""Order for each patient, and rest for a destination that failed: no storm, no overtaking, nobody held up for ever."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.delivery.pacing import Pacing
from appliance.records import Database
from appliance.records.tables import CaseState, DeliveryState
from appliance.spool import Spool
from tests.support.fake_pacs import FakePacs, abort, hang, status, store
from tests.support.outbox_site import CAP_S, FIRST_S, OutboxSite, at

DAY_S = 86_400.0


@pytest.fixture
def pacs() -> Iterator[FakePacs]:
    with FakePacs() as pacs:
        yield pacs


@pytest.fixture
def site(tmp_path: Path, database: Database, spool: Spool, pacs: FakePacs) -> OutboxSite:
    return OutboxSite.at(tmp_path, database, spool, {"pacs": pacs.peer()}, alarm_attempts=3, round_limit=4)


def test_a_newer_result_of_a_patient_does_not_overtake_an_older_one(site: OutboxSite, pacs: FakePacs) -> None:
    for number in (1, 2):
        site.result(number, patient="A")
    site.result(3, patient="B")
    pacs.play([status(0x0110)])
    site.sweep(0, FIRST_S - 1)
    assert pacs.received == ["2.25.1"], "the destination rests first"
    site.sweep(FIRST_S, FIRST_S + 1)
    assert list(pacs.stored) == ["2.25.3", "2.25.1", "2.25.2"]


def test_other_patients_go_on_while_one_result_is_not_taken(site: OutboxSite, pacs: FakePacs) -> None:
    for number, patient in ((1, "A"), (2, "A"), (3, "B"), (4, "B")):
        site.result(number, patient=patient)
    pacs.play([status(0x0110)])
    site.sweep(0, FIRST_S)
    assert list(pacs.stored) == ["2.25.3", "2.25.4", "2.25.1", "2.25.2"], "another goes first after a failure"


def test_a_result_that_is_never_taken_raises_one_alarm_and_then_lets_the_patients_others_pass(
    site: OutboxSite, pacs: FakePacs
) -> None:
    stuck, newer = site.result(1, patient="A"), site.result(2, patient="A")

    def pick(pacs: FakePacs, event: object) -> int:
        return 0x0110 if pacs.received[-1] == "2.25.1" else store(pacs, event)  # type: ignore[arg-type]

    pacs.usually = pick
    site.sweep(*range(0, 900, 5))
    assert site.case(newer).state is CaseState.DELIVERED
    assert site.case(stuck).state is CaseState.SENDING
    assert site.events(stuck).count("delivery_overdue") == 1
    attempts = site.events(stuck).count("delivery_tried")
    assert 14 <= attempts <= 20, "it is still tried, at the cap"
    assert pacs.received.index("2.25.2") == 3, "not before the alarm"


def test_a_patient_without_an_id_holds_up_its_own_study_alone(site: OutboxSite, pacs: FakePacs) -> None:
    for number, study in ((1, "1.3.1"), (2, "1.3.1"), (3, "1.3.3")):
        site.result(number, patient_id="", study_instance_uid=study)
    with site.database.transaction() as tx:
        for case in (site.case(1), site.case(2), site.case(3)):
            tx.merge(case).patient_id = ""
    pacs.play([status(0x0110)])
    site.sweep(0)
    with site.database.transaction() as tx:
        tx.merge(site.delivery(1)).next_try_at = at(50)
    site.sweep(FIRST_S)
    assert pacs.received == ["2.25.1", "2.25.3"]


def test_a_pacs_that_comes_back_is_tried_with_one_result_before_it_gets_the_rest(
    site: OutboxSite, pacs: FakePacs
) -> None:
    for number in range(1, 11):
        site.result(number)
    pacs.play([abort])
    site.sweep(0)
    assert pacs.received == ["2.25.1"]
    told = {site.delivery(number).next_try_at for number in range(1, 11)}
    assert told == {at(FIRST_S)}, "the rows say when the next try is"
    assert "broke off" in (site.delivery(7).sentence or "")
    pacs.play([abort])
    site.sweep(FIRST_S)
    assert pacs.received == ["2.25.1"] * 2
    site.sweep(FIRST_S * 3)
    assert len(pacs.received) == 2 + 4, "the limit of one round"
    site.sweep(FIRST_S * 3 + 1, FIRST_S * 3 + 2)
    assert list(pacs.stored) == [f"2.25.{number}" for number in range(1, 11)]


def test_a_new_result_does_not_make_a_pacs_that_is_down_be_tried_sooner(site: OutboxSite, pacs: FakePacs) -> None:
    pacs.stop()
    site.result(1)
    site.sweep(0, FIRST_S, FIRST_S * 3)
    for number in range(2, 8):
        site.result(number)
        site.sweep(FIRST_S * 3 + number)
    assert [site.delivery(number).attempts for number in range(1, 8)] == [3, 0, 0, 0, 0, 0, 0]
    assert "nobody answers" in (site.delivery(1).sentence or "")
    assert site.delivery(7).next_try_at == site.delivery(1).next_try_at


def test_what_a_pacs_answered_and_when_can_be_read_from_the_row(site: OutboxSite, pacs: FakePacs) -> None:
    site.result(1)
    pacs.play([status(0xA700)])
    site.sweep(3)
    delivery = site.delivery(1)
    assert delivery.last_answer == "C-STORE was answered 0xA700 (out of resources)"
    assert (delivery.last_tried_at, delivery.next_try_at) == (at(3), at(3 + FIRST_S))
    site.sweep(3 + FIRST_S)
    delivery = site.delivery(1)
    assert (delivery.last_answer, delivery.last_tried_at) == ("C-STORE was answered 0x0000", at(3 + FIRST_S))


@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S])
def test_a_clock_that_jumps_by_a_day_neither_sends_a_storm_nor_sleeps_for_a_day(
    site: OutboxSite, pacs: FakePacs, jump_s: float
) -> None:
    for number in range(1, 6):
        site.result(number)
    pacs.stop()
    site.sweep(0)
    for quarter in range(1, 10):  # of a second, while the wall clock says another day
        site.hands.seconds = quarter / 4
        site.outbox.sweep(at(jump_s + quarter / 4))
    assert [site.delivery(number).attempts for number in range(1, 6)] == [1, 0, 0, 0, 0]
    pacs.start()
    for second in (FIRST_S + 0.1, FIRST_S + 1):
        site.hands.seconds = second
        site.outbox.sweep(at(jump_s + second))
    assert len(pacs.stored) == 5


def test_a_box_whose_clock_was_a_day_ahead_when_it_stopped_sends_when_it_starts(
    site: OutboxSite, pacs: FakePacs
) -> None:
    site.result(1)
    pacs.play([status(0xA700)])
    site.outbox.sweep(at(DAY_S))
    site.outbox = site.new_outbox()
    site.sweep(10)
    assert list(pacs.stored) == ["2.25.1"]


def test_one_destination_that_is_down_does_not_hold_up_the_patients_result_at_another(
    tmp_path: Path, database: Database, spool: Spool
) -> None:
    with FakePacs() as up, FakePacs() as down:
        peers = {"up": up.peer(), "down": down.peer()}
        site = OutboxSite.at(tmp_path, database, spool, peers, network_timeout_s=2.0)
        down.play([hang] * 3)
        for number in range(1, 4):
            site.result(number, "down", "up", patient="A")
        site.sweep(0)
        assert list(up.stored) == ["2.25.1", "2.25.2", "2.25.3"]
        assert down.received == ["2.25.1"]


def test_a_pacs_that_is_down_for_long_is_tried_a_bounded_number_of_times(site: OutboxSite, pacs: FakePacs) -> None:
    site.outbox = type(site.outbox)(
        site.settings, site.database, site.spool, Pacing(FIRST_S, CAP_S, ticking=lambda: site.hands.seconds)
    )
    pacs.stop()
    for number in range(1, 6):
        site.result(number)
    site.sweep(*range(0, 1200, 20))
    attempts = [site.delivery(number).attempts for number in range(1, 6)]
    assert 20 <= attempts[0] <= 45, "about one a cap, half of it at least"
    assert attempts[1:] == [0, 0, 0, 0]
    assert {site.delivery(number).state for number in range(1, 6)} == {DeliveryState.PENDING}
