"""Retention: what is proved, refused or set aside goes after its term; nothing else ever does."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from pydicom import Dataset

from appliance.audit.trail import trail_of, trail_of_box
from appliance.casework.retention import Removed, Retention
from appliance.casework.stocktaking import take_stock
from appliance.failpoint import TRAPS
from appliance.intake.arrivals import index_arrivals
from appliance.intake.assembler import Assembler
from appliance.records import Database
from appliance.records.tables import NEVER, Case, CaseState, DeliveryState, Instance, InstanceState, Proof, Result
from appliance.settings import Settings
from appliance.spool import Spool
from appliance.spool.holdings import is_intact
from tests.support.arriving import arrive, arrive_all, arrive_bytes
from tests.support.config_folder import make_settings
from tests.support.ct_files import make_ct_series
from tests.support.dying import killed_in
from tests.support.reading import READING
from tests.support.rows import NOON, add_result, new_delivery
from tests.support.structure_sets import small_structure_set

RESULT = "2.25.42"
IMAGES_DAYS, RESULTS_DAYS, REFUSED_DAYS, ASIDE_DAYS = 30, 60, 10, 5
TERMS = {
    "images_days": IMAGES_DAYS,
    "results_days": RESULTS_DAYS,
    "refused_days": REFUSED_DAYS,
    "quarantine_days": ASIDE_DAYS,
}


@dataclass
class Bench:
    """A box with one case of three images and a result that was delivered at noon."""

    settings: Settings
    database: Database
    spool: Spool
    paths: list[Path]

    def run(self, days: float) -> Removed:
        return Retention(self.settings, self.database, self.spool).run(_days(days))

    def index(self) -> None:
        while index_arrivals(self.database, self.spool, NOON + timedelta(days=3650), READING):
            pass

    def files(self, folder: str) -> int:
        return sum(path.is_file() for path in (self.spool.root / folder).rglob("*"))

    def set(self, state: CaseState, delivery: DeliveryState, **fields: object) -> None:
        with self.database.transaction() as tx:
            case = tx.get_one(Case, 1)
            case.state, case.entered_state_at = state, NOON
            for each in case.deliveries:
                each.state = delivery
                for name, value in fields.items():
                    setattr(each, name, value)

    def instances(self) -> list[Instance]:
        with self.database.reading() as tx:
            return list(tx.query(Instance).order_by(Instance.id))


@pytest.fixture
def bench(tmp_path: Path, database: Database, spool: Spool) -> Bench:
    settings = make_settings(tmp_path, {"retention": TERMS})
    paths = make_ct_series(tmp_path / "ct", slices=3, rows=8, columns=8)
    bench = Bench(settings, database, spool, paths)
    arrive_all(spool, paths)
    bench.index()
    spool.keep_result(f"{RESULT}.dcm", small_structure_set(RESULT))
    with database.transaction() as tx:
        case = tx.get_one(Case, 1)
        case.state = CaseState.COMMITTED
        add_result(tx, case, RESULT, spool=spool)
    new_delivery(database, 1, state=DeliveryState.COMMITTED, proof=Proof.COMMITMENT, proved_at=NOON)
    return bench


def _days(days: float) -> datetime:
    return NOON + timedelta(days=days)


def test_images_go_after_their_term_and_leave_their_row_and_an_event(bench: Bench) -> None:
    assert bench.run(IMAGES_DAYS - 0.1) == Removed()
    assert bench.run(IMAGES_DAYS + 0.1) == Removed(images=3)
    assert (bench.files("instances"), bench.files("results")) == (0, 1)
    assert {instance.removed_at for instance in bench.instances()} == {_days(IMAGES_DAYS + 0.1)}
    assert all(instance.digest and instance.sop_instance_uid for instance in bench.instances())
    with bench.database.reading() as tx:
        assert trail_of(tx, 1)[-1].words == "3 images were removed, their term being over; their digests stay"
    assert take_stock(bench.database, bench.spool, _days(40)).missing == ()
    assert bench.run(IMAGES_DAYS + 1) == Removed()


def test_results_have_a_longer_term_of_their_own(bench: Bench) -> None:
    bench.run(RESULTS_DAYS - 0.1)
    assert bench.files("results") == 1
    assert bench.run(RESULTS_DAYS + 0.1) == Removed(results=1)
    assert bench.files("results") == 0


@pytest.mark.parametrize(
    ("state", "delivery", "fields"),
    [
        (CaseState.RECEIVING, DeliveryState.COMMITTED, {}),
        (CaseState.QUEUED, DeliveryState.COMMITTED, {}),
        (CaseState.SEGMENTING, DeliveryState.COMMITTED, {}),
        (CaseState.SENDING, DeliveryState.PENDING, {"proof": None, "proved_at": None}),
        (CaseState.DELIVERED, DeliveryState.ACCEPTED, {"proof": None, "proved_at": None, "next_try_at": NEVER}),
        (CaseState.COMMITTED, DeliveryState.PENDING, {"proof": None, "proved_at": None}),
        (CaseState.COMMITTED, DeliveryState.ACCEPTED, {"proof": None, "proved_at": None}),
        (CaseState.COMMITTED, DeliveryState.COMMITTED, {"proved_at": None}),
        (CaseState.FAILED, DeliveryState.COMMITTED, {}),
        (CaseState.CANCELLED, DeliveryState.COMMITTED, {}),
        (CaseState.SUPERSEDED, DeliveryState.COMMITTED, {}),
    ],
)
def test_what_is_not_proved_or_not_ended_never_goes(
    bench: Bench, state: CaseState, delivery: DeliveryState, fields: dict[str, object]
) -> None:
    bench.set(state, delivery, **fields)
    assert bench.run(10_000) == Removed()
    assert (bench.files("instances"), bench.files("results")) == (3, 1)


def test_what_was_sent_again_and_not_answered_yet_stays(bench: Bench) -> None:
    with bench.database.transaction() as tx:
        tx.get_one(Case, 1).repeated_at = NOON
    assert bench.run(10_000) == Removed()


def test_an_older_revision_goes_with_the_newest_and_not_before(bench: Bench, tmp_path: Path) -> None:
    (late, *_) = make_ct_series(tmp_path / "late", slices=4, rows=8, columns=8)[3:]
    arrive(bench.spool, late)
    bench.index()
    bench.set(CaseState.SUPERSEDED, DeliveryState.COMMITTED)
    assert bench.run(10_000) == Removed()
    with bench.database.transaction() as tx:
        newest = tx.get_one(Case, 2)
        newest.state = CaseState.COMMITTED
        add_result(tx, newest, "2.25.43")
    new_delivery(bench.database, 2, state=DeliveryState.COMMITTED, proof=Proof.SIGHTING, proved_at=NOON)
    assert bench.run(IMAGES_DAYS + 1) == Removed(images=4)


def test_images_of_a_refused_series_have_their_own_term(bench: Bench) -> None:
    bench.set(CaseState.REFUSED, DeliveryState.COMMITTED)
    assert bench.run(REFUSED_DAYS - 0.1) == Removed()
    assert bench.run(REFUSED_DAYS + 0.1) == Removed(images=3)


def test_what_was_set_aside_has_its_own_term(bench: Bench) -> None:
    arrive_bytes(bench.spool, b"no data set")
    bench.index()
    came = bench.instances()[-1].received_at
    rule = Retention(bench.settings, bench.database, bench.spool)
    assert rule.run(came + timedelta(days=ASIDE_DAYS - 0.1)).aside == 0
    assert bench.files("quarantine") == 1
    assert rule.run(came + timedelta(days=ASIDE_DAYS + 0.1)).aside == 1
    assert bench.files("quarantine") == 0
    with bench.database.reading() as tx:
        assert "aside_removed" in [entry.event for entry in trail_of_box(tx, 10)]


def test_a_term_of_zero_keeps_for_ever(tmp_path: Path, bench: Bench) -> None:
    settings = make_settings(tmp_path, {"retention": dict.fromkeys(TERMS, 0)})
    assert Retention(settings, bench.database, bench.spool).run(_days(30_000)) == Removed()


def test_a_full_disk_shortens_no_term(tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(10, 10, 0))  # type: ignore[attr-defined]
    settings = make_settings(tmp_path, {"retention": TERMS, "intake": {"free_space_reserve_mb": 100_000_000}})
    assert Retention(settings, bench.database, bench.spool).run(_days(IMAGES_DAYS - 1)) == Removed()
    assert bench.files("instances") == 3


def test_a_dry_run_says_the_same_and_changes_nothing(bench: Bench) -> None:
    rule = Retention(bench.settings, bench.database, bench.spool)
    assert rule.due(_days(RESULTS_DAYS + 1)) == Removed(images=3, results=1)
    assert (bench.files("instances"), bench.files("results")) == (3, 1)
    assert rule.run(_days(RESULTS_DAYS + 1)) == Removed(images=3, results=1)


@pytest.mark.parametrize("place", ["files_marked", "files_removed"])
def test_a_crash_in_the_middle_is_made_good_by_the_next_run(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    traps = tmp_path / "traps"
    traps.mkdir()
    (traps / place).write_text("kill")
    monkeypatch.setenv(TRAPS, str(traps))
    bench.database.engine.dispose()
    killed_in(lambda: bench.run(IMAGES_DAYS + 1))
    assert all(instance.removed_at for instance in bench.instances())
    bench.run(IMAGES_DAYS + 2)
    assert bench.files("instances") == 0
    stock = take_stock(bench.database, bench.spool, _days(60))
    assert (stock.missing, stock.left_over) == ((), ())


def test_images_that_come_again_are_kept_again(bench: Bench) -> None:
    bench.run(IMAGES_DAYS + 1)
    arrive_all(bench.spool, bench.paths)
    bench.index()
    assert [instance.times_received for instance in bench.instances()] == [2, 2, 2]
    assert {instance.removed_at for instance in bench.instances()} == {None}
    assert all(is_intact(bench.spool.instance_path(each.digest), each.digest) for each in bench.instances())
    assert list(bench.spool.arrivals()) == []


def test_another_content_under_the_uid_of_a_removed_image_is_a_new_image(bench: Bench, tmp_path: Path) -> None:
    def change(_: int, dataset: Dataset) -> None:
        dataset.PixelData = bytes(reversed(dataset.PixelData))

    bench.run(IMAGES_DAYS + 1)
    arrive_all(bench.spool, make_ct_series(tmp_path / "other", slices=3, rows=8, columns=8, mutate=change))
    bench.index()
    assert [each.state for each in bench.instances()] == [InstanceState.KEPT] * 6
    assert [each.removed_at is None for each in bench.instances()] == [False] * 3 + [True] * 3


def test_an_object_that_comes_again_between_its_mark_and_its_removal_is_kept(bench: Bench) -> None:
    """The order of a race: marked, then received again, then the file would be removed."""
    rule = Retention(bench.settings, bench.database, bench.spool)
    remove_now: Callable[..., None] = rule._erase

    def meanwhile(files: list[object]) -> None:
        if files:
            arrive_all(bench.spool, bench.paths)
            bench.index()
        remove_now(files)

    rule._erase = meanwhile  # type: ignore[assignment, method-assign]
    rule.run(_days(IMAGES_DAYS + 1))
    assert bench.files("instances") == 3
    assert {instance.removed_at for instance in bench.instances()} == {None}


def test_a_series_that_is_sent_again_after_its_result_was_removed_is_worked_on_anew(
    tmp_path: Path, bench: Bench
) -> None:
    bench.run(RESULTS_DAYS + 1)
    arrive_all(bench.spool, bench.paths)
    bench.index()
    with bench.database.transaction() as tx:
        assert tx.get_one(Case, 1).repeated_at is not None
        (result,) = tx.query(Result)
        assert result.removed_at is not None
    settings = make_settings(tmp_path, {"intake": {"series_quiet_s": 0.01}, "retention": TERMS})
    steady_s = 0.0
    assembler = Assembler(settings, bench.database, bench.spool, READING, steady=lambda: steady_s)
    for _ in range(2):
        assembler.sweep(_days(RESULTS_DAYS + 1))
        steady_s += 1.0
    with bench.database.reading() as tx:
        assert [case.revision for case in tx.query(Case).order_by(Case.id)] == [1, 2]
