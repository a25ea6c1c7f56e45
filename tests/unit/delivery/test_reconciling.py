"""The PACS and the rows compared, both ways."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset

from appliance.audit.trail import trail_of_box
from appliance.delivery.reconciling import MOST_SENT_AGAIN, Reconciler, Reconciliation
from appliance.records import Database
from appliance.records.tables import CaseState, DeliveryState
from appliance.spool import Spool
from tests.support.config_folder import BONES, make_settings
from tests.support.fake_pacs import Commitment, FakePacs
from tests.support.outbox_site import OutboxSite, at
from tests.support.rows import new_case

DAY_S = 86_400.0


@pytest.fixture
def pacs() -> Iterator[FakePacs]:
    with FakePacs(commitment=Commitment.ABSENT) as pacs:
        yield pacs


@pytest.fixture
def site(tmp_path: Path, database: Database, spool: Spool, pacs: FakePacs) -> OutboxSite:
    delivery = {"network_timeout_s": 1.0, "sighting_wait_s": 1.0, "retry_first_s": 5.0, "retry_cap_s": 60.0}
    settings = make_settings(
        tmp_path, {"delivery": delivery}, peers={"pacs": pacs.peer(query=True)}, protocols={"bones": BONES}
    )
    return OutboxSite(settings, database, spool)


def _compare(site: OutboxSite, after_s: float = DAY_S) -> Reconciliation:
    return Reconciler(site.settings, site.database, site.spool).run(at(after_s))


def _scan(number: int, *, date: str = "20260102", body_part: str = "PELVIS", modality: str = "CT") -> Dataset:
    scan = Dataset()
    scan.StudyInstanceUID, scan.SeriesInstanceUID = f"1.3.{number}", f"1.2.{number}"
    scan.StudyDate, scan.Modality, scan.BodyPartExamined = date, modality, body_part
    scan.StudyDescription, scan.SeriesDescription = "study", "series"
    return scan


def test_a_series_that_fits_a_protocol_and_never_came_is_named(site: OutboxSite, pacs: FakePacs) -> None:
    pacs.scans = [
        _scan(1),
        _scan(2, body_part="FOOT"),
        _scan(3, modality="MR"),
        _scan(4, date="20251201"),
        _scan(5),
    ]
    new_case(site.database, CaseState.REFUSED, series_instance_uid="1.2.5")
    found = _compare(site)
    assert [(one.peer, one.series_instance_uid, one.protocol) for one in found.missed] == [("pacs", "1.2.1", "bones")]
    assert found.series == 3
    assert "pacs has series 1.2.1, which fits protocol bones; none of it came here" in list(found.in_words())


def test_a_result_that_they_lost_is_sent_again_under_its_uid(site: OutboxSite, pacs: FakePacs) -> None:
    cases = [site.result(number) for number in (1, 2, 3)]
    site.sweep(0, 1)
    assert {site.case(case_id).state for case_id in cases} == {CaseState.COMMITTED}
    del pacs.stored["2.25.2"]
    found = _compare(site)
    assert found.sent_again == [("pacs", cases[1], "2.25.2")]
    assert found.results == 3
    assert site.case(cases[1]).state is CaseState.SENDING
    assert site.words(cases[1])[-1] == "pacs does not have the structure set any more; it is sent again"
    site.sweep(DAY_S, DAY_S + 1)
    assert site.case(cases[1]).state is CaseState.COMMITTED
    assert pacs.received == ["2.25.1", "2.25.2", "2.25.3", "2.25.2"]
    assert _compare(site, DAY_S + 2).sent_again == []


def test_a_result_that_was_accepted_without_proof_is_looked_for_as_well(site: OutboxSite, pacs: FakePacs) -> None:
    case_id = site.result(1)
    site.sweep(0)
    pacs.stored.clear()
    assert site.case(case_id).state is CaseState.DELIVERED
    assert _compare(site).sent_again == [("pacs", case_id, "2.25.1")]


def test_both_results_of_a_case_that_are_gone_are_sent_again(site: OutboxSite, pacs: FakePacs) -> None:
    with FakePacs("OTHER", commitment=Commitment.ABSENT) as other:
        peers = {"pacs": pacs.peer(query=True), "other": other.peer(query=True)}
        two = OutboxSite(
            make_settings(site.settings.folder.parent, {}, peers=peers, protocols={}), site.database, site.spool
        )
        case_id = two.result(1, "pacs", "other")
        two.sweep(0)
        pacs.stored.clear()
        other.stored.clear()
        assert len(_compare(two).sent_again) == 2
        two.sweep(DAY_S)
        assert (list(pacs.stored), list(other.stored)) == (["2.25.1"], ["2.25.1"])
        assert two.events(case_id).count("result_missing") == 2


def test_what_is_older_than_the_days_that_are_looked_at_is_left_alone(site: OutboxSite, pacs: FakePacs) -> None:
    site.result(1)
    site.sweep(0, 1)
    pacs.stored.clear()
    assert _compare(site, 8 * DAY_S).results == 0


def test_a_damaged_file_of_a_delivered_result_is_told_and_never_sent(site: OutboxSite, pacs: FakePacs) -> None:
    case_id = site.result(1)
    site.sweep(0, 1)
    (site.spool.root / "results" / "2.25.1.dcm").write_bytes(b"rot")
    pacs.stored.clear()
    found = _compare(site)
    assert found.sent_again == []
    (sentence,) = found.damaged
    assert sentence.startswith(f"case {case_id}: 2.25.1.dcm is damaged or gone here")


def test_a_pacs_that_says_it_lacks_everything_is_not_flooded(site: OutboxSite) -> None:
    for number in range(1, MOST_SENT_AGAIN + 3):
        site.result(number)
    with site.database.transaction() as tx:
        for number in range(1, MOST_SENT_AGAIN + 3):
            tx.merge(site.case(number)).state = CaseState.DELIVERED
            tx.merge(site.delivery(number)).state = DeliveryState.ACCEPTED
    found = _compare(site)
    assert len(found.sent_again) == MOST_SENT_AGAIN
    assert found.unsure == ["pacs says that it lacks 52 results; 50 are sent again, find out why"]


def test_a_pacs_that_is_away_is_named_and_nothing_is_concluded(site: OutboxSite, pacs: FakePacs) -> None:
    site.result(1)
    site.sweep(0, 1)
    pacs.stop()
    found = _compare(site)
    assert found.asked == []
    assert "nobody answers" in found.silent["pacs"]
    assert found.sent_again == []


def test_cases_that_do_not_get_on_are_named(site: OutboxSite) -> None:
    new_case(site.database, CaseState.QUEUED, series_instance_uid="1.2.1")
    new_case(site.database, CaseState.FAILED, series_instance_uid="1.2.2")
    new_case(site.database, CaseState.REFUSED, series_instance_uid="1.2.3")
    assert _compare(site).overdue == [
        "case 1 is queued since 2026-01-02 12:00 UTC",
        "case 2 is failed since 2026-01-02 12:00 UTC",
    ]


def test_the_comparison_leaves_an_event_with_all_that_it_found(site: OutboxSite, pacs: FakePacs) -> None:
    pacs.scans = [_scan(1)]
    found = _compare(site)
    with site.database.reading() as tx:
        (entry,) = trail_of_box(tx, 5)
    assert entry.event == "reconciled"
    assert entry.words == found.summary
    assert json.loads(json.dumps(found.fields()))["missed"][0]["series"] == "1.2.1"
