"""One case from durable slices to a durable structure set: the flow of DESIGN, one step after another.

Each step is a pure function of the rooms below with its audit event beside it. A `Refused` from any step ends the
case with its reason; anything else climbs to the worker's boundary (tasks.py).
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from appliance.audit import trail
from appliance.casework.asking import Headway, ask, progress_of_one
from appliance.casework.case import Move, move
from appliance.casework.contouring import (
    Scan,
    Writing,
    load_scan,
    merge,
    provenance_of,
    refuse_empty,
    refuse_undrawn,
    result_file,
    trace_regions,
)
from appliance.casework.draft import Draft, make_draft
from appliance.casework.earlier_results import earlier_result
from appliance.casework.lease import Lease
from appliance.casework.sharing import lead, tidy
from appliance.casework.superseding import replaced_structure_set
from appliance.casework.workbench import Workbench
from appliance.clock import Effort, measured, now_utc
from appliance.dicom.ct_series import CtSeries
from appliance.dicom.result_object import ResultObject
from appliance.dicom.roi_elements import DrawnRoi
from appliance.errors import Reason, Refused
from appliance.failpoint import failpoint
from appliance.records import queries
from appliance.records.tables import Result, ResultKind
from appliance.segmentation.opening import WarmModel
from appliance.segmentation.segment import Segmented
from appliance.settings import Protocol


def contour_case(bench: Workbench, case_id: int) -> None:
    """Take one queued case through to its structure set; does nothing when the case is not waiting.

    Raises:
        LeaseLost, WorkerStopping: somebody else has the case, or it must go back (tasks.py does that).
    """
    lease = Lease(bench.database, case_id, bench.worker, bench.settings.worker.lease_s, bench.should_stop)
    lease.on_step = bench.on_step
    if not lease.take():
        return
    bench.on_taken(lease.number)
    failpoint("case_taken")
    try:
        _contour(bench, lease)
    except Refused as refused:
        with lease.held() as (tx, case, now):
            fields = {"reason": refused.reason, "sentence": refused.sentence}
            move(tx, case, Move.REFUSE, at=now, actor=bench.worker, **fields)
    tidy(bench)


def _contour(bench: Workbench, lease: Lease) -> None:
    protocol, paths = _task(bench, lease)
    models = {name: bench.model(name, partial(lease.progress, "engines")) for name in protocol.models}
    packages = {name: model.package for name, model in models.items()}
    owners = protocol.drawn_by({name: package.manifest.roi_names for name, package in packages.items()})
    refuse_undrawn(owners, protocol)
    scan = _load(paths, protocol, lease)
    failpoint("volume_loaded")
    found = _segment(bench, lease, models, owners, scan)
    failpoint("segmented")
    draft = _draft(bench, protocol, scan, found, lease)
    failpoint("masks_decided")
    rois = _trace(draft, scan.series, lease)
    failpoint("traced")
    lease.progress("write", 0, 1)
    form = bench.settings.planning_system_of(protocol)
    replaces = _replaced(lease)
    provenance = provenance_of(bench.settings, protocol, packages, scan.digest, draft, replaces)
    kept = partial(earlier_result, bench.database, bench.spool)
    writing = Writing(provenance, form, now_utc().astimezone(), kept)
    effort = Effort()
    with measured(effort):
        structure_set, findings = writing.structure_set(scan.series, draft, rois)
        bench.spool.keep_result(result_file(structure_set), structure_set.content)
    failpoint("result_written")
    if findings:
        told = [{"rule": one.rule, "roi": one.roi, "sentence": one.sentence} for one in findings]
        words = "; ".join(f"{one.roi}: {one.sentence}" if one.roi else one.sentence for one in findings)
        _remember(lease, "structure_set_examined", findings=told, words=words)
    results: dict[ResultKind, ResultObject] = {ResultKind.RTSTRUCT: structure_set}
    if "seg" in protocol.outputs:
        results[ResultKind.SEG] = _write_segmentation(bench, writing, scan, draft, lease)
    _hand_over(bench, lease, protocol, results, scan.digest, effort)
    failpoint("handed_over")


def _task(bench: Workbench, lease: Lease) -> tuple[Protocol, list[Path]]:
    with lease.held() as (tx, case, _):
        protocol = bench.settings.protocols.get(case.protocol or "")
        if protocol is None:
            sentence = f"the protocol {case.protocol} is no longer configured; restore it and send the series again"
            raise Refused(Reason.NO_PROTOCOL, sentence)
        return protocol, [bench.spool.instance_path(instance.digest) for instance in queries.instances_of(tx, case)]


def _replaced(lease: Lease) -> str:
    """SOP Instance UID of the structure set that this one takes the place of; empty for none."""
    with lease.held() as (tx, case, now):
        earlier = replaced_structure_set(tx, case)
        if earlier is None:
            return ""
        fields = {"sop_instance_uid": earlier.sop_instance_uid, "earlier_case": earlier.case_id}
        trail.record(tx, "structure_set_replaces", at=now, actor=lease.worker, case_id=case.id, **fields)
        return earlier.sop_instance_uid


def _load(paths: list[Path], protocol: Protocol, lease: Lease) -> Scan:
    effort = Effort()
    with measured(effort):
        scan = load_scan(paths, lease.progress, uneven_gaps=protocol.uneven_gaps)
    shape = " x ".join(map(str, scan.volume.hu.shape))
    _remember(lease, "volume_loaded", shape=shape, input_digest=scan.digest, **effort.fields())
    return scan


def _segment(
    bench: Workbench, lease: Lease, models: Mapping[str, WarmModel], owners: Mapping[str, str], scan: Scan
) -> Segmented:
    """Ask the model; several are shared with whoever is free, and what they found is put together."""
    if len(models) > 1:
        return merge(lead(bench, lease, models, scan), owners)
    ((name, model),) = models.items()
    headway = Headway(len(model.package.manifest.folds))

    def show() -> None:
        told = progress_of_one(name, headway)
        lease.progress("segment", told["done"], told["total"], lambda _: told)

    asked = ask(model, scan, headway, show, lambda words: _remember(lease, "memory_planned", words=words))
    with lease.held() as (tx, case, now):
        asked.note(tx, at=now, actor=bench.worker, case_id=case.id)
    return asked.found


def _draft(bench: Workbench, protocol: Protocol, scan: Scan, found: Segmented, lease: Lease) -> Draft:
    """What the model found to the structures that the protocol asks for."""
    effort = Effort()
    with measured(effort):
        lease.progress("structures", 0, len(protocol.rois))
        draft = make_draft(found, scan.volume, protocol, bench.settings, scan.series.patient_sex)
        lease.progress("structures", len(draft.regions), len(protocol.rois))
    _remember(lease, "masks_decided", volumes=draft.in_words(scan.volume.geometry), **effort.fields())
    refuse_empty(draft)
    _remember(lease, "quality_assessed", words=draft.look_in_words(), **draft.assessment())
    return draft


def _trace(draft: Draft, series: CtSeries, lease: Lease) -> list[DrawnRoi]:
    effort = Effort()
    with measured(effort):
        traced = trace_regions(draft, series, lease.progress)
    count = sum(len(roi.contours.contours) for roi in traced)
    points = sum(len(contour.points_mm) for roi in traced for contour in roi.contours.contours)
    _remember(lease, "contours_traced", contours=count, points=points, **effort.fields())
    return traced


def _write_segmentation(bench: Workbench, writing: Writing, scan: Scan, draft: Draft, lease: Lease) -> ResultObject:
    """Masks to a checked and durable Segmentation."""
    effort = Effort()
    with measured(effort):
        made = writing.segmentation(scan.series, draft)
        bench.spool.keep_result(result_file(made), made.content)
    fields = {"segments": made.segments, "frames": made.frames, "size_kb": len(made.content) >> 10, **effort.fields()}
    _remember(lease, "segmentation_written", sop_instance_uid=made.sop_instance_uid, sha256=made.digest, **fields)
    return made


def _hand_over(
    bench: Workbench,
    lease: Lease,
    protocol: Protocol,
    results: dict[ResultKind, ResultObject],
    digest: str,
    effort: Effort,
) -> None:
    """In one transaction: the rows, the outbox and the event. The results themselves are durable already."""
    made = [
        Result(kind=kind, sop_instance_uid=one.sop_instance_uid, digest=one.digest, file=result_file(one))
        for kind, one in results.items()
    ]
    result = results[ResultKind.RTSTRUCT]
    with lease.held() as (tx, case, now):
        fields = {"sop_instance_uid": result.sop_instance_uid, "size_kb": len(result.content) >> 10, **effort.fields()}
        move(tx, case, Move.FINISH, at=now, actor=bench.worker, sha256=made[0].digest, **fields)
        case.input_digest, case.progress = digest, {}
        queries.note_results(tx, case, made)
        queries.put_in_outbox(tx, case, protocol.destinations, now)


def _remember(lease: Lease, event: str, **fields: Any) -> None:
    with lease.held() as (tx, case, now):
        trail.record(tx, event, at=now, actor=lease.worker, case_id=case.id, **fields)
