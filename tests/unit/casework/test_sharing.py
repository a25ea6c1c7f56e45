"""Several models, one structure set: whoever does which part, and whoever dies, the result is the same."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appliance.audit.trail import trail_of
from appliance.casework.attending import attend_part
from appliance.casework.case import Move, move
from appliance.casework.contouring import merge
from appliance.casework.lease import Lease
from appliance.casework.part_lease import PartLease, PartLost
from appliance.casework.sharing import tidy
from appliance.casework.tasks import queues_of
from appliance.clock import Effort, now_utc
from appliance.dicom.roi import RoiMask
from appliance.dicom.structure_file import read_structure_file
from appliance.records import Database, queries
from appliance.records.tables import CaseState, Part, PartState, ResultKind
from appliance.segmentation.quality import RoiQuality
from appliance.segmentation.segment import Segmented
from appliance.spool import Spool
from tests.support.config_folder import BONES, make_settings
from tests.support.model_packages import DENSE_ROIS, make_threshold_package
from tests.support.patients import make_patient
from tests.support.rows import new_case
from tests.support.worker_site import Site, queue_up, without_times

BOTH = {
    **BONES,
    "model": ["thresholds", "dense"],
    "rois": ["External", "Bone_Pelvic", "Other", "Bone_PRV04"],
    "derived": [{"roi": "Bone_PRV04", "of": ["Bone_Pelvic", "Other"], "combine": "intersection", "margin_mm": 4}],
}
Build = Callable[..., Site]


@pytest.fixture
def build(tmp_path: Path, database: Database, spool: Spool) -> Build:
    """Makes a queued case whose protocol has two models."""

    def _build(**protocol: Any) -> Site:
        make_threshold_package(tmp_path / "models" / "thresholds", tile=(16, 32, 32))
        dense = {"body": -400.0, "dense": 600.0}
        make_threshold_package(
            tmp_path / "models" / "dense", name="dense", thresholds_hu=dense, rois=DENSE_ROIS, tile=(16, 32, 32)
        )
        tables = {"appliance": {"models_dir": "../models"}, "worker": {"threads": 1}}
        settings = make_settings(tmp_path, tables, protocols={"bones": {**BOTH, **protocol}})
        return queue_up(settings, database, spool, make_patient(tmp_path / "ct", "one", slices=6))

    return _build


@pytest.fixture
def alone(build: Build) -> tuple[Site, bytes]:
    """A site whose only worker made the whole result, and that result; the case is as if it had never begun."""
    site = build()
    site.attend()
    content = site.content(ResultKind.RTSTRUCT)
    _begin_again(site)
    return site, content


def _begin_again(site: Site) -> None:
    site.forget_results()
    shutil.rmtree(site.bench.spool.root / "results")
    (site.bench.spool.root / "results").mkdir()
    site.change(state=CaseState.QUEUED, attempts=0)


def _count(site: Site, event: str, words: str = "") -> int:
    with site.bench.database.reading() as tx:
        return sum(entry.event == event and words in entry.words for entry in trail_of(tx, site.case_id))


def _change_part(site: Site, model: str, **fields: Any) -> None:
    with site.bench.database.transaction() as tx:
        part = queries.part_of(tx, site.case_id, model)
        assert part is not None
        for name, value in fields.items():
            setattr(part, name, value)


def _stop_when_asked_about(site: Site, model: str) -> Callable[[], bool]:
    """A worker that is told to stop as soon as it works on this part."""

    def is_at_it() -> bool:
        return any(part.model == model and part.state is PartState.WORKING for part in site.parts())

    return is_at_it


def test_one_worker_alone_makes_one_structure_set_of_all_models(build: Build) -> None:
    site = build()
    site.attend()
    assert site.case.state is CaseState.SENDING, site.case.sentence
    assert site.case.model == "thresholds, dense"
    written = read_structure_file(site.content(ResultKind.RTSTRUCT))
    assert [roi.name for roi in written.rois] == ["External", "Bone_Pelvic", "Other", "Bone_PRV04"]
    assert [_count(site, "segmented", f"segmented by {name} 1.0.0") for name in ("thresholds", "dense")] == [1, 1]
    assert site.parts() == []
    assert list((site.bench.spool.root / "parts").iterdir()) == []


def test_a_structure_comes_from_the_model_that_the_protocol_names_for_it(build: Build) -> None:
    site = build(rois=["External", {"roi": "Bone_Pelvic", "model": "dense"}], derived=[])
    site.attend()
    by_dense = site.content(ResultKind.RTSTRUCT)
    assert by_dense.count(b"model digest") == by_dense.count(b"Model digest") == 2
    first, second = (site.bench.model(name).package.digest.encode() for name in ("thresholds", "dense"))
    assert (by_dense.count(b"model digest " + first), by_dense.count(b"model digest " + second)) == (1, 1)


def test_a_structure_that_its_named_model_does_not_draw_is_refused(build: Build) -> None:
    site = build(rois=["Bone_Pelvic", {"roi": "External", "model": "dense"}], derived=[])
    site.attend()
    sentence = "of thresholds and dense none draws External as it is asked to; correct the protocol bones"
    assert (site.case.reason, site.case.sentence) == ("model_invalid", sentence)


def test_a_worker_that_hears_the_bell_takes_a_part_and_the_result_is_the_same(alone: tuple[Site, bytes]) -> None:
    site, content = alone
    helper = replace(site.bench, worker="worker-2", _models={})
    rung: list[str] = []

    def ring(case_id: int, model: str) -> bool:
        rung.append(model)
        attend_part(helper, case_id, model)
        return True

    site.attend(ring_part=ring)
    assert rung == ["dense"]
    assert _count(site, "part_taken", "worker-2 took the part of model dense, attempt 1") == 1
    shared = site.content(ResultKind.RTSTRUCT)
    assert without_times(shared) == without_times(content)


def test_a_late_bell_for_a_part_that_is_done_or_gone_does_nothing(build: Build) -> None:
    site = build()
    site.attend()
    events = site.events()
    attend_part(site.bench, site.case_id, "dense")
    attend_part(site.bench, 4711, "dense")
    assert site.events() == events


def test_a_part_that_fell_silent_is_taken_over_and_the_result_is_the_same(alone: tuple[Site, bytes]) -> None:
    site, content = alone
    long_ago = now_utc() - timedelta(seconds=1)

    def die(_case_id: int, model: str) -> bool:
        _change_part(site, model, state=PartState.WORKING, lease_owner="worker-2", lease_until=long_ago)
        return True

    site.attend(ring_part=die)
    assert _count(site, "part_lost", "worker worker-2 lost the part of model dense: no progress for 60 s") == 1
    assert without_times(site.content(ResultKind.RTSTRUCT)) == without_times(content)


def test_a_part_that_was_done_before_its_lead_ended_is_used_by_the_next_lead(alone: tuple[Site, bytes]) -> None:
    site, content = alone
    before = _count(site, "segmented")
    site.attend(should_stop=_stop_when_asked_about(site, "dense"))
    assert site.case.state is CaseState.QUEUED
    assert [part.state for part in site.parts()] == [PartState.DONE, PartState.WAITING]
    site.attend(worker="worker-3")
    assert _count(site, "segmented") == before + 2, "each model was asked once"
    assert without_times(site.content(ResultKind.RTSTRUCT)) == without_times(content)


def test_a_part_whose_file_is_damaged_is_made_again(alone: tuple[Site, bytes]) -> None:
    site, content = alone
    site.attend(should_stop=_stop_when_asked_about(site, "dense"))
    (file,) = (site.bench.spool.root / "parts").iterdir()
    file.write_bytes(file.read_bytes()[:100])
    before = _count(site, "segmented")
    site.attend()
    assert _count(site, "segmented") == before + 2
    assert without_times(site.content(ResultKind.RTSTRUCT)) == without_times(content)


def test_a_worker_with_another_version_of_the_model_leaves_the_part_to_the_lead(
    alone: tuple[Site, bytes], tmp_path: Path
) -> None:
    site, content = alone
    other = make_threshold_package(
        tmp_path / "other" / "dense",
        name="dense",
        rois=DENSE_ROIS[:1],
        tile=(16, 32, 32),
        thresholds_hu={"dense": 500.0},
    )
    assert other.is_dir()
    tables = {"appliance": {"models_dir": "../../other"}, "worker": {"threads": 1}}
    settings = make_settings(tmp_path / "elsewhere", tables, protocols={"bones": BOTH})
    helper = replace(site.bench, worker="worker-2", settings=settings, _models={})
    site.attend(ring_part=lambda case_id, model: attend_part(helper, case_id, model) is None)
    assert _count(site, "part_taken", "worker-2 took") == 1
    assert without_times(site.content(ResultKind.RTSTRUCT)) == without_times(content)


def test_what_a_helper_cannot_do_is_said_by_the_lead(build: Build) -> None:
    site = build()
    fold = site.bench.settings.models_dir / "dense" / "fold_1.onnx"

    def spoil_and_help(case_id: int, model: str) -> bool:
        fold.write_bytes(fold.read_bytes() + b"\0")
        attend_part(replace(site.bench, worker="worker-2", _models={}), case_id, model)
        return True

    site.attend(ring_part=spoil_and_help)
    assert site.case.state is CaseState.SENDING, "the lead had loaded it before"
    assert _count(site, "part_taken", "worker-2 took") == 1


def test_parts_of_a_case_that_nobody_will_work_on_are_removed_with_their_files(alone: tuple[Site, bytes]) -> None:
    site, _ = alone
    site.attend(should_stop=_stop_when_asked_about(site, "dense"))
    tidy(site.bench)
    assert len(site.parts()) == 2, "the case waits for its next worker"
    site.change(state=CaseState.SUPERSEDED)
    tidy(site.bench)
    assert (site.parts(), list((site.bench.spool.root / "parts").iterdir())) == ([], [])


def _leading(database: Database) -> int:
    case_id = new_case(database, CaseState.QUEUED)
    assert Lease(database, case_id, "worker-lead", 60.0, lambda: False).take()
    with database.transaction() as tx:
        tx.add(Part(case_id=case_id, model="dense", state=PartState.WAITING, attempts=0, progress={}, file="a.npz"))
    return case_id


def test_a_part_has_one_worker_at_a_time_and_only_that_one_may_write(build: Build, database: Database) -> None:
    bench = build().bench
    case_id = _leading(database)
    slow = PartLease(bench, case_id, "dense")
    assert slow.take()
    assert slow.file == "a.npz"
    quick = PartLease(replace(bench, worker="worker-2"), case_id, "dense")
    assert not quick.take()
    with database.transaction() as tx:
        part = queries.part_of(tx, case_id, "dense")
        assert part is not None
        part.lease_until = now_utc() - timedelta(seconds=1)
    assert quick.take()
    with pytest.raises(PartLost):
        slow.progress({"done": 1})
    slow.let_go()
    quick.progress({"done": 2, "total": 9})
    with database.reading() as tx:
        (part,) = queries.parts_of(tx, case_id)
    assert (part.lease_owner, part.attempts, part.progress) == ("worker-2", 2, {"done": 2, "total": 9})
    assert part.lease_until is not None
    assert part.lease_until > now_utc() + timedelta(seconds=50)


def test_a_part_of_a_case_that_was_superseded_is_given_up(build: Build, database: Database) -> None:
    bench = build().bench
    case_id = _leading(database)
    part = PartLease(bench, case_id, "dense")
    assert part.take()
    with database.transaction() as tx:
        case = queries.case_by_id(tx, case_id)
        assert case is not None
        move(tx, case, Move.SUPERSEDE, at=now_utc(), actor="assembler", sentence="revision 2 takes its place")
    with pytest.raises(PartLost):
        part.progress({})
    part.let_go()
    assert not part.take()


@pytest.mark.parametrize(
    ("device", "queues"),
    [
        ("auto", ["delineate"]),
        ("cpu", ["delineate", "delineate.cpu"]),
        ("cuda:0", ["delineate", "delineate.cuda0"]),
    ],
)
def test_a_worker_listens_where_all_are_rung_for_and_where_its_device_is(device: str, queues: list[str]) -> None:
    assert queues_of(device) == queues


def test_of_two_models_that_draw_a_structure_only_its_own_one_counts() -> None:
    def found(*names: str) -> Segmented:
        masks = [RoiMask.from_volume(name, np.ones((2, 2, 2), np.bool_)) for name in names]
        quality = [RoiQuality(name, 0.9, None, 1.0) for name in names]
        return Segmented(tuple(masks), tuple(quality), ("thick slices",), (Effort(1.0),))

    both = {"pelvis": found("Bladder", "Rectum"), "thorax": found("Bladder", "Heart")}
    for owner in both:
        owners = {"Bladder": owner, "Rectum": "pelvis", "Heart": "thorax"}
        merged = merge(both, owners)
        order = [("pelvis", "Bladder")] * (owner == "pelvis") + [("pelvis", "Rectum")]
        order += [("thorax", "Bladder")] * (owner == "thorax") + [("thorax", "Heart")]
        originals = {(model, mask.name): mask for model, one in both.items() for mask in one.masks}
        assert [id(mask) for mask in merged.masks] == [id(originals[each]) for each in order]
        assert [rated.name for rated in merged.quality] == [name for _, name in order]
        assert (merged.warnings, len(merged.network_effort)) == (("thick slices",), 2)
