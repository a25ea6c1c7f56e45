"""Proof by C-FIND where a destination offers no commitment: seen there, or sent again under the same UID."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.delivery.sighting import inquiring
from appliance.delivery.store_scu import Caller, NotDelivered
from appliance.records import Database
from appliance.records.tables import CaseState, DeliveryState, Proof
from appliance.settings import Peer
from appliance.spool import Spool
from tests.support.fake_pacs import Commitment, FakePacs, forget, forgetting_one_in, hang
from tests.support.outbox_site import OutboxSite, at


@pytest.fixture
def pacs() -> Iterator[FakePacs]:
    with FakePacs(commitment=Commitment.ABSENT) as pacs:
        yield pacs


@pytest.fixture
def site(tmp_path: Path, database: Database, spool: Spool, pacs: FakePacs) -> OutboxSite:
    return OutboxSite.at(tmp_path, database, spool, {"pacs": pacs.peer(query=True)})


def test_a_result_that_is_seen_at_the_pacs_is_proved_and_the_words_say_how(site: OutboxSite, pacs: FakePacs) -> None:
    case_id = site.result(1)
    site.sweep(0, 0.5)
    assert site.case(case_id).state is CaseState.DELIVERED
    assert pacs.found == [], "not before it had time to store"
    site.sweep(1)
    delivery = site.delivery(1)
    assert (delivery.state, delivery.proof, delivery.proved_at) == (DeliveryState.COMMITTED, Proof.SIGHTING, at(1))
    assert site.case(case_id).state is CaseState.COMMITTED
    assert site.words(case_id)[-2:] == [
        "pacs has the structure set: it was seen there by C-FIND",
        "kept by pacs (seen there by C-FIND)",
    ]
    site.sweep(3600)
    assert (pacs.received, pacs.found) == (["2.25.1"], ["IMAGE"])


def test_a_pacs_that_answers_for_series_alone_is_asked_for_the_series(site: OutboxSite, pacs: FakePacs) -> None:
    pacs.finds_images = False
    case_id = site.result(1)
    site.sweep(0, 1)
    assert pacs.found == ["IMAGE", "SERIES"]
    assert site.case(case_id).state is CaseState.COMMITTED


def test_a_result_that_is_not_there_is_looked_for_again_and_then_sent_again_under_its_uid(
    site: OutboxSite, pacs: FakePacs
) -> None:
    pacs.play([forget])
    case_id = site.result(1)
    site.sweep(0, 1, 3)
    assert site.delivery(1).unseen == 2
    assert pacs.received == ["2.25.1"], "a PACS may show it only after a while"
    site.sweep(7)
    assert "delivery_unseen" in site.events(case_id)
    assert site.delivery(1).state is DeliveryState.PENDING
    site.sweep(12, 13)
    assert pacs.received == ["2.25.1", "2.25.1"]
    assert site.case(case_id).state is CaseState.COMMITTED


def test_a_pacs_that_cannot_be_asked_now_is_asked_later_and_nothing_is_sent_again(
    site: OutboxSite, pacs: FakePacs
) -> None:
    case_id = site.result(1)
    site.sweep(0)
    pacs.stop()
    site.sweep(1)
    assert "nobody answers" in (site.delivery(1).sentence or "")
    assert site.case(case_id).state is CaseState.DELIVERED
    pacs.start()
    site.sweep(7)
    assert site.case(case_id).state is CaseState.COMMITTED
    assert pacs.received == ["2.25.1"]


def test_a_pacs_without_c_find_is_named_and_the_case_stays_delivered(site: OutboxSite, pacs: FakePacs) -> None:
    pacs.stop()
    pacs.answers_find = False
    pacs.start()
    case_id = site.result(1)
    site.sweep(0, 1)
    assert site.delivery(1).sentence == "it does not answer C-FIND; turn query off in peers.toml"
    assert site.case(case_id).state is CaseState.DELIVERED


def test_where_nothing_can_be_proved_the_case_ends_as_delivered(
    tmp_path: Path, database: Database, spool: Spool, pacs: FakePacs
) -> None:
    site = OutboxSite.at(tmp_path, database, spool, {"pacs": pacs.peer()})
    case_id = site.result(1)
    site.sweep(0, 3600)
    assert (site.case(case_id).state, site.delivery(1).proof) == (CaseState.DELIVERED, None)


def test_one_destination_by_commitment_and_one_by_sighting_prove_a_case_together(
    tmp_path: Path, database: Database, spool: Spool, pacs: FakePacs
) -> None:
    with FakePacs(commitment=Commitment.AT_ONCE) as archive:
        peers = {"pacs": pacs.peer(query=True), "archive": archive.peer(storage_commitment=True)}
        site = OutboxSite.at(tmp_path, database, spool, peers)
        case_id = site.result(1, "pacs", "archive")
        site.sweep(0, 0.9)
        archive.finish_reports()
        site.sweep(0.95)
        assert site.case(case_id).state is CaseState.DELIVERED
        site.sweep(1)
        assert site.words(case_id)[-1] == "kept by pacs (seen there by C-FIND), archive (storage commitment)"


def test_of_results_of_which_a_pacs_drops_one_in_five_all_are_kept_in_the_end(site: OutboxSite, pacs: FakePacs) -> None:
    pacs.usually = forgetting_one_in(5)
    cases = [site.result(number) for number in range(1, 11)]
    site.sweep(*range(60))
    assert {site.case(case_id).state for case_id in cases} == {CaseState.COMMITTED}
    assert len(pacs.stored) == 10
    assert len(pacs.received) == 12


def test_a_pacs_that_hangs_in_its_answer_is_given_up_after_the_time_limit(pacs: FakePacs) -> None:
    pacs.hold_answers = lambda: hang(pacs, None)  # type: ignore[arg-type]
    peer = Peer.model_validate(pacs.peer(query=True))
    with pytest.raises(NotDelivered, match="broke off"), inquiring(Caller("DELINEATE", 0.3), peer) as inquiry:
        inquiry.has("1.2", "1.2.3", "1.2.3.4")
