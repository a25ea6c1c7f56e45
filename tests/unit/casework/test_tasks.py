"""The worker: from durable slices to a durable structure set in the outbox, and what happens to a case that breaks."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from appliance.casework.attending import attend
from appliance.casework.operating import Operator, retry
from appliance.casework.tasks import doorbell, ring
from appliance.delivery.settling import accept
from appliance.dicom.structure_file import read_structure_file
from appliance.records import Database, queries
from appliance.records.tables import CaseState, DeliveryState, ResultKind
from appliance.settings import Settings
from appliance.spool import Spool
from tests.support.config_folder import BONES, make_settings
from tests.support.free_ports import free_port
from tests.support.model_packages import make_threshold_package
from tests.support.patients import AIR_HU, bony_hu, make_patient
from tests.support.rows import NOON, new_case, read_case
from tests.support.worker_site import Site, queue_up, receive

MINUTE = timedelta(minutes=1)


Build = Callable[..., Site]


@pytest.fixture
def build(tmp_path: Path, database: Database, spool: Spool) -> Build:
    """Makes a queued case from a patient of a few slices; the model is real and knows body and bone."""

    def _build(protocol: dict[str, Any] | None = None, held_back: int = 0, **patient: Any) -> Site:
        make_threshold_package(tmp_path / "models" / "thresholds", tile=(16, 32, 32))
        tables = {"appliance": {"models_dir": "../models"}, "worker": {"threads": 1}}
        settings = make_settings(tmp_path, tables, protocols={"bones": {**BONES, **(protocol or {})}})
        paths = make_patient(tmp_path / "ct", "one", **{"slices": 6, **patient})
        return queue_up(settings, database, spool, paths[: len(paths) - held_back])

    return _build


def test_a_queued_case_becomes_a_durable_structure_set_in_the_outbox(build: Build) -> None:
    site = build()
    site.attend()
    assert site.events()[-9:] == [
        "work_started",
        "volume_loaded",
        "memory_planned",
        "segmented",
        "masks_decided",
        "quality_assessed",
        "contours_traced",
        "structure_set_examined",
        "structure_set_written",
    ]
    assert "planned: ONNX Runtime on the CPU: needs 0." in site.words_of("memory_planned")
    assert "Bone_Pelvic: it reaches the first slice and the last slice" in site.words_of("structure_set_examined")
    case = site.case
    assert (case.state, case.progress, case.lease_owner) == (CaseState.SENDING, {}, None)
    content = site.content(ResultKind.RTSTRUCT)
    assert [roi.name for roi in read_structure_file(content).rois] == ["External", "Bone_Pelvic"]
    assert [(each.destination, each.state) for each in site.deliveries] == [("pacs", DeliveryState.PENDING)]


def test_a_protocol_that_asks_for_it_gets_a_segmentation_of_the_same_voxels_beside_the_structure_set(
    build: Build,
) -> None:
    site = build({"outputs": ["rtstruct", "seg"]})
    site.attend()
    assert site.events()[-2:] == ["segmentation_written", "structure_set_written"]
    segmentation = dcmread(BytesIO(site.content(ResultKind.SEG)))
    written = read_structure_file(site.content(ResultKind.RTSTRUCT))
    names = [roi.name for roi in written.rois]
    assert [item.SegmentLabel for item in segmentation.SegmentSequence] == names == ["External", "Bone_Pelvic"]
    assert segmentation.NumberOfFrames == sum(
        len({contour.image_uids for contour in one.contours}) for one in written.roi_contours
    )
    assert [(each.kind, each.digest, each.sop_instance_uid) for each in site.case.results] == [
        (kind, hashlib.sha256(site.content(kind)).hexdigest(), dcmread(BytesIO(site.content(kind))).SOPInstanceUID)
        for kind in ResultKind
    ]
    assert [(each.destination, each.result.kind) for each in site.deliveries] == [
        ("pacs", ResultKind.RTSTRUCT),
        ("pacs", ResultKind.SEG),
    ]


def test_a_segmentation_that_was_made_before_is_taken_again(build: Build) -> None:
    site = build({"outputs": ["rtstruct", "seg"]})
    site.attend()
    path = site.bench.spool.root / "results" / f"{site.case.results[1].sop_instance_uid}.dcm"
    earlier = dcmread(path)
    earlier.ContentTime = "010101"
    earlier.save_as(path)
    content = path.read_bytes()
    site.forget_results()
    site.change(state=CaseState.QUEUED)
    site.attend(worker="worker-2")
    assert site.content(ResultKind.SEG) == content
    assert site.case.results[1].digest == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("kind", ResultKind)
@pytest.mark.parametrize("was_handed_over", [True, False])
def test_a_result_that_was_damaged_on_the_disk_is_made_again(
    build: Build, kind: ResultKind, *, was_handed_over: bool
) -> None:
    site = build({"outputs": ["rtstruct", "seg"]})
    site.attend()
    result = site.case.result(kind)
    assert result is not None
    path = site.bench.spool.root / "results" / result.file
    damaged = bytearray(path.read_bytes())
    damaged[-2] ^= 1
    path.write_bytes(damaged)
    if not was_handed_over:
        site.forget_results()
    site.change(state=CaseState.QUEUED)
    site.attend(worker="worker-2")
    assert site.case.state is CaseState.SENDING
    again = site.case.result(kind)
    assert again is not None
    assert again.sop_instance_uid == result.sop_instance_uid
    assert hashlib.sha256(site.content(kind)).hexdigest() == again.digest
    assert site.content(kind) != bytes(damaged)


def test_a_protocol_that_asks_for_no_segmentation_any_more_has_none_delivered(build: Build) -> None:
    site = build({"outputs": ["rtstruct", "seg"]})
    site.attend()
    settings = site.bench.settings
    alone = settings.protocols["bones"].model_copy(update={"outputs": ("rtstruct",)})
    site.change(state=CaseState.QUEUED)
    site.attend(settings=settings.model_copy(update={"protocols": {"bones": alone}}))
    assert [each.kind for each in site.case.results] == [ResultKind.RTSTRUCT]
    assert [each.result.kind for each in site.deliveries] == [ResultKind.RTSTRUCT]


def test_the_doorbell_may_ring_twice(build: Build) -> None:
    site = build()
    site.attend()
    events = site.events()
    site.attend()
    assert site.events() == events
    assert len(site.deliveries) == 1


def test_a_worker_that_died_before_it_could_hand_over_leaves_the_same_result_to_be_made_again(build: Build) -> None:
    site = build()
    site.attend()
    first = site.case
    content = _made_at_another_time(site, f"{first.result_sop_instance_uid}.dcm")
    site.forget_results()
    site.change(state=CaseState.QUEUED)
    site.attend(worker="worker-2")
    second = site.case
    assert second.result_sop_instance_uid == first.result_sop_instance_uid
    assert [each.digest for each in second.results] == [hashlib.sha256(content).hexdigest()]
    assert site.content(ResultKind.RTSTRUCT) == content
    assert len(site.deliveries) == 1


def _made_at_another_time(site: Site, name: str) -> bytes:
    """The result on disk as if it had been made earlier: the same but for its time of making."""
    path = site.bench.spool.root / "results" / name
    structure_set = dcmread(path)
    structure_set.StructureSetTime = "010101"
    structure_set.save_as(path)
    return path.read_bytes()


def test_a_case_that_breaks_the_worker_is_tried_three_times_and_then_parked(build: Build, spool: Spool) -> None:
    site = build()
    next((spool.root / "instances").rglob("*.dcm")).unlink()
    for attempt in (1, 2):
        site.attend()
        assert (site.case.state, site.case.attempts) == (CaseState.QUEUED, attempt)
    site.attend()
    case = site.case
    assert (case.state, case.reason) == (CaseState.FAILED, "worker_lost")
    assert case.sentence == "the worker failed with FileNotFoundError; see its log"


def test_a_parked_case_that_is_tried_again_has_all_its_attempts_before_it(build: Build, spool: Spool) -> None:
    site = build()
    lost = next((spool.root / "instances").rglob("*.dcm"))
    content = lost.read_bytes()
    lost.unlink()
    for _ in range(3):
        site.attend()
    lost.write_bytes(content)
    with site.bench.database.transaction() as tx:
        case = queries.case_by_id(tx, site.case_id)
        assert case is not None
        retry(tx, case, Operator("jane", NOON))
    assert (site.case.state, site.case.attempts, site.case.rung_at) == (CaseState.QUEUED, 0, None)
    site.attend()
    assert site.case.state is CaseState.SENDING


def test_a_worker_that_is_stopped_gives_the_case_back_and_that_is_no_attempt(build: Build) -> None:
    site = build()
    for _ in range(5):
        site.attend(should_stop=lambda: True)
        assert (site.case.state, site.case.attempts) == (CaseState.QUEUED, 0)
    assert site.events().count("work_lost") == 5
    site.attend()
    assert site.case.state is CaseState.SENDING


def test_a_worker_whose_case_was_taken_away_writes_nothing_more(build: Build) -> None:
    site = build()
    asked: list[int] = []

    def supersede_meanwhile() -> bool:
        asked.append(1)
        if len(asked) == 3:
            site.change(state=CaseState.SUPERSEDED, lease_owner=None)
        return False

    site.attend(should_stop=supersede_meanwhile)
    assert site.case.state is CaseState.SUPERSEDED
    assert site.deliveries == []
    assert list((site.bench.spool.root / "results").iterdir()) == []


def test_a_worker_that_fails_on_a_case_that_another_has_taken_over_leaves_it_to_the_other(build: Build) -> None:
    site = build()

    def lose_and_stop() -> bool:
        site.change(lease_owner="worker-2")
        return True

    site.attend(should_stop=lose_and_stop)
    assert (site.case.state, site.case.lease_owner) == (CaseState.SEGMENTING, "worker-2")
    assert "work_lost" not in site.events()


@pytest.mark.parametrize(
    ("protocol", "patient", "reason", "words"),
    [
        ({"model": "absent"}, {}, "model_missing", "there is no model package absent"),
        ({"rois": ["External", "Other"]}, {}, "model_invalid", "does not draw Other"),
        ({}, {"hu": bony_hu((6, 48, 48), bone_radius=0)}, "nothing_found", "none of the protocol's structures"),
        ({}, {"hu": bony_hu((6, 48, 48)) * 0 + AIR_HU}, "nothing_found", "none of the protocol's structures"),
        ({}, {"gap_mm": 7.0}, "input_outside_model_limits", ""),
    ],
    ids=["no model", "unknown structure", "no bone", "only air", "too coarse"],
)
def test_what_the_model_cannot_do_is_refused_with_its_reason(
    build: Build, protocol: dict[str, Any], patient: dict[str, Any], reason: str, words: str
) -> None:
    site = build(protocol, **patient)
    site.attend()
    case = site.case
    assert (case.state, case.reason) == (CaseState.REFUSED, reason), case.sentence
    assert words in (case.sentence or "")
    assert site.deliveries == []


def test_an_altered_fold_stops_the_model_and_not_the_worker(build: Build) -> None:
    site = build()
    fold = site.bench.settings.models_dir / "thresholds" / "fold_1.onnx"
    fold.write_bytes(fold.read_bytes() + b"\0")
    site.bench.warm_up()
    site.attend()
    assert (site.case.state, site.case.reason) == (CaseState.REFUSED, "model_altered")


def test_a_protocol_that_was_taken_out_of_the_configuration_is_named(build: Build) -> None:
    site = build()
    without: Settings = site.bench.settings.model_copy(update={"protocols": {}})
    site.attend(settings=without)
    assert (site.case.state, site.case.reason) == (CaseState.REFUSED, "no_protocol")
    assert "the protocol bones is no longer configured" in (site.case.sentence or "")


def test_a_broker_that_is_away_is_an_answer_and_no_error(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, {"broker": {"port": free_port()}})
    assert ring(doorbell(settings), 1) is False


def test_a_case_that_fails_for_good_keeps_the_worker_warm_for_the_next(build: Build, database: Database) -> None:
    site = build()
    site.bench.warm_up()
    warm = site.bench.model("thresholds")
    other = new_case(database, CaseState.QUEUED, protocol="bones", series_instance_uid="1.2.4")
    attend(site.bench, other)
    attend(site.bench, site.case_id)
    assert read_case(database, other).state in {CaseState.REFUSED, CaseState.QUEUED}
    assert site.case.state is CaseState.SENDING
    assert site.bench.model("thresholds") is warm


def test_a_late_slice_makes_another_structure_set_that_names_the_one_it_replaces(build: Build, tmp_path: Path) -> None:
    site = build(slices=7, held_back=1)
    site.attend()
    old = site.case.result_sop_instance_uid
    with site.bench.database.transaction() as tx:
        case, (delivery,) = queries.case_by_id(tx, 1), queries.deliveries_of(tx, site.case)
        accept(tx, delivery, site.bench.settings.peers, "0x0000", MINUTE, NOON)
        assert case is not None
        assert case.state is CaseState.DELIVERED
    receive(site, [tmp_path / "ct" / "0006.dcm"])
    late = replace(site, case_id=2)
    assert (site.case.state, late.case.state, late.case.slices) == (CaseState.DELIVERED, CaseState.QUEUED, 7)
    late.attend()
    made = dcmread(BytesIO(late.content(ResultKind.RTSTRUCT)))
    (named,) = made.PredecessorStructureSetSequence
    assert (named.ReferencedSOPInstanceUID, made.SOPInstanceUID == old) == (old, False)
    assert f"this replaces structure set {old}." in made.StructureSetDescription
    assert late.words_of("structure_set_replaces") == f"to take the place of structure set {old} of case 1"
    assert site.case.state is CaseState.DELIVERED, "as long as the new one is not delivered"
    with site.bench.database.transaction() as tx:
        (delivery,) = queries.deliveries_of(tx, late.case)
        accept(tx, delivery, site.bench.settings.peers, "0x0000", MINUTE, NOON)
    assert (site.case.state, late.case.state) == (CaseState.SUPERSEDED, CaseState.DELIVERED)
    assert "revision 2 with 7 slices was delivered in its place" in (site.case.sentence or "")


def test_what_was_never_sent_is_not_named_as_replaced(build: Build, tmp_path: Path) -> None:
    site = build(slices=7, held_back=1)
    site.attend()
    receive(site, [tmp_path / "ct" / "0006.dcm"])
    late = replace(site, case_id=2)
    late.attend()
    assert (site.case.state, late.case.state) == (CaseState.SUPERSEDED, CaseState.SENDING)
    assert "PredecessorStructureSetSequence" not in dcmread(BytesIO(late.content(ResultKind.RTSTRUCT)))
