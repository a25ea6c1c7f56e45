"""Storage commitment for those who sent to us: "kept" is said of what is here and whole, and of nothing else."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import CTImageStorage, MRImageStorage

from appliance.audit.trail import trail_of_box
from appliance.clock import now_utc
from appliance.delivery.lanes import Lanes
from appliance.delivery.outbox import Outbox
from appliance.delivery.store_scu import Caller
from appliance.delivery.vouching import NOTE_KIND, Voucher
from appliance.intake.arrivals import index_arrivals
from appliance.records import Database
from appliance.records.tables import Instance
from appliance.spool import Spool
from tests.support.arriving import arrive, arrive_all
from tests.support.config_folder import make_settings
from tests.support.ct_files import make_ct_series
from tests.support.fake_pacs import FakePacs
from tests.support.free_ports import free_port
from tests.support.hands import Hands
from tests.support.reading import READING
from tests.support.waiting import wait_until

TRANSACTION = "2.25.777"


@dataclass
class Bench:
    """A box that keeps some slices, and the PACS that sent them."""

    database: Database
    spool: Spool
    pacs: FakePacs
    hands: Hands
    voucher: Voucher
    lanes: Lanes
    paths: list[Path]

    def ask(self, *uids: str, sop_class: str = CTImageStorage, caller: str = "FAKEPACS") -> None:
        """What the listener leaves of a request."""
        pairs = [[sop_class, uid] for uid in uids]
        self.spool.leave_note(NOTE_KIND, {"transaction_uid": TRANSACTION, "caller": caller, "asked": pairs})

    def answer(self, after_s: float = 60.0) -> None:
        for notes in self.voucher.waiting().values():
            for note in notes:
                self.voucher.answer(note, now_utc() + timedelta(seconds=after_s))

    def told(self) -> tuple[int, list[str], dict[str, int]]:
        """Event type, what is kept, and what is not with its failure reason, of the only report."""
        ((event_type, report),) = self.pacs.reports
        assert report.TransactionUID == TRANSACTION
        kept = [str(item.ReferencedSOPInstanceUID) for item in report.get("ReferencedSOPSequence", [])]
        lost = {
            str(item.ReferencedSOPInstanceUID): int(item.FailureReason) for item in report.get("FailedSOPSequence", [])
        }
        return event_type, kept, lost

    def instances(self) -> list[Instance]:
        with self.database.reading() as tx:
            return list(tx.query(Instance).order_by(Instance.id))

    def uids(self) -> list[str]:
        return [str(instance.sop_instance_uid) for instance in self.instances()]

    def box_events(self) -> list[str]:
        with self.database.reading() as tx:
            return [entry.event for entry in trail_of_box(tx, 10)]


@pytest.fixture
def bench(tmp_path: Path, database: Database, spool: Spool) -> Iterator[Bench]:
    with FakePacs() as pacs:
        delivery = {"network_timeout_s": 1.0}
        settings = make_settings(tmp_path, {"delivery": delivery}, peers={"pacs": pacs.peer()}, protocols={})
        hands, caller = Hands(), Caller.of(settings, 1.0)
        pacing = hands.pacing(5.0, 60.0)
        voucher = Voucher(settings, database, spool, caller, pacing)
        lanes = Lanes(Outbox(settings, database, spool, pacing, caller), voucher)
        paths = make_ct_series(tmp_path / "ct", slices=3, rows=8, columns=8)
        arrive_all(spool, paths)
        index(database, spool)
        yield Bench(database, spool, pacs, hands, voucher, lanes, paths)
        lanes.stop()


def index(database: Database, spool: Spool) -> None:
    while index_arrivals(database, spool, now_utc() + timedelta(minutes=1), READING):
        pass


def test_what_is_kept_is_committed_to_on_an_association_of_our_own(bench: Bench) -> None:
    bench.ask(*bench.uids())
    bench.answer()
    assert bench.told() == (1, bench.uids(), {})
    assert list(bench.spool.notes(NOTE_KIND)) == []
    assert bench.box_events() == ["commitment_answered"]


def test_the_running_deliverer_answers(bench: Bench) -> None:
    bench.ask(*bench.uids())
    bench.lanes.look()
    wait_until(lambda: bench.pacs.reports, 10, "the report")
    assert bench.told()[0] == 1


def _never_came(bench: Bench) -> str:
    return "1.2.3.4.5" if bench else ""


def _flip_a_byte(bench: Bench) -> str:
    instance = bench.instances()[0]
    path = bench.spool.instance_path(instance.digest)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    return str(instance.sop_instance_uid)


def _lose_the_file(bench: Bench) -> str:
    instance = bench.instances()[0]
    bench.spool.instance_path(instance.digest).unlink()
    return str(instance.sop_instance_uid)


def _remove_by_retention(bench: Bench) -> str:
    with bench.database.transaction() as tx:
        instance = tx.query(Instance).order_by(Instance.id).first()
        assert instance is not None
        instance.removed_at = now_utc()
        return str(instance.sop_instance_uid)


def _other_content(bench: Bench) -> str:
    def change(_: int, dataset: object) -> None:
        dataset.PixelData = bytes(reversed(dataset.PixelData))  # type: ignore[attr-defined]

    folder = bench.paths[0].parent.parent / "other"
    (path, *_) = make_ct_series(folder, slices=3, rows=8, columns=8, mutate=change)
    arrive(bench.spool, path)
    index(bench.database, bench.spool)
    return bench.uids()[-1]


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (_never_came, 0x0112),
        (_flip_a_byte, 0x0110),
        (_lose_the_file, 0x0110),
        (_remove_by_retention, 0x0112),
        (_other_content, 0x0110),
    ],
)
def test_what_is_not_kept_as_it_came_is_not_committed_to(
    bench: Bench, harm: Callable[[Bench], str], reason: int
) -> None:
    bad = harm(bench)
    good = bench.uids()[1]
    bench.ask(good, bad)
    bench.answer()
    assert bench.told() == (2, [good], {bad: reason})


def test_an_object_is_not_said_to_be_unknown_while_it_may_still_lie_in_its_slot(bench: Bench) -> None:
    bench.ask("1.2.3.4.5")
    bench.answer(after_s=1)
    assert bench.pacs.reports == []
    bench.hands.seconds = 60
    bench.answer(after_s=11)
    assert bench.told() == (2, [], {"1.2.3.4.5": 0x0112})


def test_another_class_than_that_of_the_object_is_a_conflict(bench: Bench) -> None:
    uid = bench.uids()[0]
    bench.ask(uid, sop_class=MRImageStorage)
    bench.answer()
    assert bench.told() == (2, [], {uid: 0x0119})


def test_what_is_no_uid_is_repeated_to_nobody(bench: Bench) -> None:
    bench.ask("../../etc/passwd", bench.uids()[0])
    bench.answer()
    assert bench.told() == (1, [bench.uids()[0]], {})


def test_a_request_that_names_nothing_is_not_answered(bench: Bench) -> None:
    bench.ask("../../etc/passwd")
    bench.answer()
    assert bench.pacs.reports == []
    assert bench.box_events() == ["commitment_unanswered"]


def test_what_is_durable_but_not_yet_indexed_is_waited_for(bench: Bench, tmp_path: Path) -> None:
    (path,) = make_ct_series(tmp_path / "more", slices=1, rows=8, columns=8, series="more")
    arrive(bench.spool, path)
    sop = str(dcmread(path).SOPInstanceUID)
    bench.ask(sop)
    bench.answer()
    assert bench.pacs.reports == []
    index(bench.database, bench.spool)
    bench.answer()
    assert bench.told() == (1, [sop], {})


def test_a_caller_that_is_away_is_told_when_it_is_back(bench: Bench) -> None:
    bench.pacs.stop()
    bench.ask(*bench.uids())
    bench.answer()
    bench.pacs.start()
    bench.answer()
    assert bench.pacs.reports == [], "it rests first"
    bench.hands.seconds = 5.0
    bench.answer()
    assert bench.told()[0] == 1


def test_a_caller_that_nobody_knows_is_not_called(bench: Bench) -> None:
    bench.ask(*bench.uids(), caller="STRANGER")
    bench.answer()
    assert bench.box_events() == ["commitment_unanswered"]
    assert list(bench.spool.notes(NOTE_KIND)) == []


def test_a_caller_that_hangs_does_not_keep_another_waiting(bench: Bench, tmp_path: Path) -> None:
    with FakePacs("OTHER") as other:
        peers = {"pacs": bench.pacs.peer(port=free_port()), "other": other.peer()}
        settings = make_settings(tmp_path, {"delivery": {"network_timeout_s": 1.0}}, peers=peers, protocols={})
        caller = Caller.of(settings, 1.0)
        pacing = bench.hands.pacing(5.0, 60.0)
        voucher = Voucher(settings, bench.database, bench.spool, caller, pacing)
        bench.ask(*bench.uids())
        bench.ask(*bench.uids(), caller="OTHER")
        lanes = Lanes(Outbox(settings, bench.database, bench.spool, pacing, caller), voucher)
        lanes.look()
        wait_until(lambda: other.reports, 10, "the other's report")
        lanes.stop()
