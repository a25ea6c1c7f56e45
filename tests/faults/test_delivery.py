"""F12 and F13: a PACS that is down for hours, in every way that a PACS can be, and one that loses what it accepted."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from appliance.records import Database
from appliance.records.tables import CaseState, Delivery, DeliveryState
from appliance.spool import Spool
from tests.support.fake_pacs import Answer, Commitment, FakePacs, abort, forget, forgetting_one_in, hang, status
from tests.support.outbox_site import OutboxSite
from tests.support.proof import Tally
from tests.support.rows import NOON

Times = Callable[[int, int], int]

HOUR_S = 3600.0
FIRST_S, CAP_S = 5.0, 900.0
OF_A_PATIENT = 4  #: results, the older first
DOUBLINGS = 9  #: until 5 s have become 900 s and more


@pytest.fixture
def pacs() -> Iterator[FakePacs]:
    with FakePacs(commitment=Commitment.AT_ONCE) as pacs:
        yield pacs


Build = Callable[..., OutboxSite]


@pytest.fixture
def build(tmp_path: Path, database: Database, spool: Spool, pacs: FakePacs) -> Build:
    """Makes a box whose only destination is the PACS, proved as told."""

    def _build(patience_s: float = 10.0, **proof: bool) -> OutboxSite:
        times = {"retry_first_s": FIRST_S, "retry_cap_s": CAP_S, "network_timeout_s": patience_s}
        return OutboxSite.at(tmp_path, database, spool, {"pacs": pacs.peer(**proof)}, **times)

    return _build


def _open(site: OutboxSite) -> list[Delivery]:
    with site.database.reading() as tx:
        open_states = (DeliveryState.PENDING, DeliveryState.ACCEPTED)
        return list(tx.query(Delivery).filter(Delivery.state.in_(open_states)).order_by(Delivery.next_try_at))


def _pass_time(site: OutboxSite, pacs: FakePacs, from_s: float, until_s: float, *, restart_at_s: float = 0.0) -> float:
    """Let rounds go by as they would, but skip the time in which nothing is due; returns when nothing was open."""
    now_s, looked = from_s, list[tuple[object, ...]]()
    while now_s < until_s:
        if 0.0 < restart_at_s <= now_s:
            site.outbox, restart_at_s = site.new_outbox(), 0.0
        site.sweep(now_s)
        pacs.finish_reports()
        still_open = _open(site)
        if not still_open:
            site.sweep(now_s + 0.25)
            return now_s
        dues_s = [(each.next_try_at - NOON) / timedelta(seconds=1) for each in still_open]
        looks = [(each.id, each.state, each.next_try_at) for each in still_open]
        is_stuck, looked = looks == looked, looks  # what is due waits for an older one
        now_s = max(now_s + 0.25, min([due_s for due_s in dues_s if due_s > now_s or not is_stuck], default=until_s))
    return until_s


def _order_is_kept(pacs: FakePacs) -> bool:
    """Whether the results of every patient were stored the older first."""
    numbers = [int(uid.rpartition(".")[2]) for uid in pacs.stored]
    patients: dict[int, list[int]] = {}
    for number in numbers:
        patients.setdefault((number - 1) // OF_A_PATIENT, []).append(number)
    return all(own == sorted(own) for own in patients.values())


@pytest.mark.fault("F12", "never lose")
@pytest.mark.parametrize(
    ("what", "hours"),
    [(None, 12), (abort, 3), (hang, 0.25), (status(0xA700), 3), (status(0x0110), 3)],
    ids=["refuses associations", "accepts and aborts", "hangs", "out of resources", "processing failure"],
)
def test_a_pacs_that_was_down_for_hours_gets_every_result_once_and_in_order(
    build: Build, pacs: FakePacs, tally: Tally, times: Times, what: Answer | None, hours: float
) -> None:
    site, results = build(2.0 if what is hang else 10.0, storage_commitment=True), times(12, 200)
    outage_s = times(int(hours * HOUR_S), 12 * int(HOUR_S))
    cases = [site.result(number, patient=f"P{(number - 1) // OF_A_PATIENT}") for number in range(1, results + 1)]
    if what is None:
        pacs.stop()
    else:
        pacs.usually = what
    _pass_time(site, pacs, 0.0, outage_s, restart_at_s=outage_s / 2)
    attempts = sum(site.delivery(number).attempts for number in range(1, results + 1))
    bound = outage_s / (CAP_S / 2) + 2 * DOUBLINGS + 1  # one restart in between
    assert attempts <= bound, "the destination was asked more often than its waits allow"
    assert pacs.stored == {}
    failed = len(pacs.received)
    pacs.usually = _store
    if what is None:
        pacs.start()
    ended_s = _pass_time(site, pacs, outage_s, outage_s + 2 * HOUR_S)
    assert ended_s - outage_s <= CAP_S + 120.0, "the results waited longer than the cap once the PACS was back"
    once = len(pacs.received) - failed == results
    for number, case_id in enumerate(cases, 1):
        kept = f"2.25.{number}" in pacs.stored and site.case(case_id).state is CaseState.COMMITTED
        tally.count(held=kept and once and _order_is_kept(pacs))
    tally.figures["attempts while it was down"] = f"{attempts} in {outage_s / HOUR_S:g} h (at most {bound:.0f})"


def _store(pacs: FakePacs, event: object) -> int:
    pacs.keep(event)  # type: ignore[arg-type]
    return 0x0000


@pytest.mark.fault("F12", "never lose")
@pytest.mark.parametrize("proof", ["storage_commitment", "query"])
def test_a_pacs_that_said_success_for_hours_and_kept_nothing_has_everything_in_the_end(
    build: Build, pacs: FakePacs, tally: Tally, times: Times, proof: str
) -> None:
    site, results = build(**{proof: True}), times(6, 200)
    outage_s = times(1, 12) * HOUR_S
    cases = [site.result(number, patient=f"P{(number - 1) // OF_A_PATIENT}") for number in range(1, results + 1)]
    pacs.usually = forget
    _pass_time(site, pacs, 0.0, outage_s)
    sent = len(pacs.received)
    most = results * (outage_s / (CAP_S / 2) + DOUBLINGS + 2)
    assert results < sent <= most
    pacs.usually = _store
    _pass_time(site, pacs, outage_s, outage_s + 2 * HOUR_S)
    for number, case_id in enumerate(cases, 1):
        tally.count(held=f"2.25.{number}" in pacs.stored and site.case(case_id).state is CaseState.COMMITTED)
    tally.figures["sent in vain"] = f"{sent / results:.1f} times each in {outage_s / HOUR_S:g} h"


@pytest.mark.fault("F13", "never lose")
@pytest.mark.parametrize("proof", ["storage_commitment", "query"])
def test_of_what_a_pacs_drops_one_in_five_all_is_kept_in_the_end_under_the_same_uids(
    build: Build, pacs: FakePacs, tally: Tally, times: Times, proof: str
) -> None:
    site, results = build(**{proof: True}), times(15, 500)
    pacs.usually = forgetting_one_in(5)
    cases = [site.result(number) for number in range(1, results + 1)]
    _pass_time(site, pacs, 0.0, 6 * HOUR_S)
    for number, case_id in enumerate(cases, 1):
        tally.count(held=f"2.25.{number}" in pacs.stored and site.case(case_id).state is CaseState.COMMITTED)
    assert set(pacs.received) == {f"2.25.{number}" for number in range(1, results + 1)}, "no other UID was ever sent"
    dropped = len(pacs.received) - results
    assert dropped >= results // 5
    tally.figures["dropped by the PACS and sent again"] = str(dropped)
