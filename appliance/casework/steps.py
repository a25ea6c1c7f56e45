"""One case from durable slices to a durable structure set: the flow of DESIGN, one step after another.

Each step is a pure function of the rooms below with its audit event beside it. A `Refused` from any step ends the
case with its reason; anything else climbs to the worker's boundary (tasks.py).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import structlog

from appliance import __version__
from appliance.audit import trail
from appliance.casework.case import Move, move
from appliance.casework.draft import Draft, make_draft, recipe_digest
from appliance.casework.lease import Lease
from appliance.casework.warm_models import warm_model
from appliance.clock import Effort, measured, now_utc
from appliance.dicom.contours import RoiContours
from appliance.dicom.ct_series import CtSeries, assemble_series
from appliance.dicom.ct_slice import parse_slice
from appliance.dicom.ct_volume import CtVolume, input_digest, load_volume
from appliance.dicom.findings import Finding
from appliance.dicom.result_object import ResultObject
from appliance.dicom.roi_elements import DrawnRoi
from appliance.dicom.scan_description import ScanDescription
from appliance.dicom.structure_check import check_structure_set
from appliance.dicom.structure_set import Provenance, StructureSet, build_structure_set
from appliance.errors import ModelRefused, Reason, Refused, ResultRefused
from appliance.records import Database, queries
from appliance.records.tables import Result, ResultKind
from appliance.segmentation.model_package import load_package
from appliance.segmentation.opening import WarmModel
from appliance.segmentation.segment import Segmented
from appliance.segmentation.within_memory import segment_within_memory
from appliance.settings import Protocol, Settings
from appliance.spool import Spool

log = structlog.get_logger()


@dataclass
class Workbench:
    """What a worker needs for every case; it keeps each model warm once it has been used."""

    settings: Settings
    database: Database
    spool: Spool
    worker: str
    should_stop: Callable[[], bool] = lambda: False
    _models: dict[str, WarmModel] = field(default_factory=dict)

    def warm_up(self) -> None:
        """Load the models of all protocols before the first case; a bad one is met again, in words, by its case."""
        for name in sorted({protocol.model for protocol in self.settings.protocols.values()}):
            try:
                self.model(name)
            except ModelRefused as refused:
                log.warning("model_refused", model=name, reason=refused.reason, sentence=refused.sentence)

    def model(self, name: str, on_engine: Callable[[int, int], None] = lambda *_: None) -> WarmModel:
        """One model, warm; `on_engine` hears of each engine that has to be examined first.

        Raises:
            ModelRefused: the package is missing, invalid or altered.
        """
        if name not in self._models:
            package = load_package(self.settings.models_dir / name)
            self._models[name] = warm_model(self.settings, package, on_engine)
            log.info("model_loaded", model=name, words=self._models[name].words)
        return self._models[name]


def contour_case(bench: Workbench, case_id: int) -> None:
    """Take one queued case through to its structure set; does nothing when the case is not waiting.

    Raises:
        LeaseLost, WorkerStopping: somebody else has the case, or it must go back (tasks.py does that).
    """
    lease = Lease(bench.database, case_id, bench.worker, bench.settings.worker.lease_s, bench.should_stop)
    if not lease.take():
        return
    try:
        _contour(bench, lease)
    except Refused as refused:
        with lease.held() as (tx, case, now):
            fields = {"reason": refused.reason, "sentence": refused.sentence}
            move(tx, case, Move.REFUSE, at=now, actor=bench.worker, **fields)


def _contour(bench: Workbench, lease: Lease) -> None:
    protocol, paths = _task(bench, lease)
    model = bench.model(protocol.model, lambda done, total: lease.progress("engines", done, total))
    series, volume, digest = _load(paths, protocol, lease)
    found = _segment(model, volume, protocol, lease)
    draft = _draft(bench, protocol, volume, series.patient_sex, found, lease)
    rois = _trace(draft, series, lease)
    effort = Effort()
    with measured(effort):
        structure_set, findings = _write(bench, protocol, series, digest, (draft, rois))
        bench.spool.keep_result(_result_file(structure_set), structure_set.content)
    if findings:
        told = [{"rule": one.rule, "roi": one.roi, "sentence": one.sentence} for one in findings]
        words = "; ".join(f"{one.roi}: {one.sentence}" if one.roi else one.sentence for one in findings)
        _remember(lease, "structure_set_examined", findings=told, words=words)
    results: dict[ResultKind, ResultObject] = {ResultKind.RTSTRUCT: structure_set}
    if "seg" in protocol.outputs:
        results[ResultKind.SEG] = _write_segmentation(bench, protocol, series, (digest, draft), lease)
    _hand_over(bench, lease, protocol, results, digest, effort)


def _task(bench: Workbench, lease: Lease) -> tuple[Protocol, list[Path]]:
    with lease.held() as (tx, case, _):
        protocol = bench.settings.protocols.get(case.protocol or "")
        if protocol is None:
            sentence = f"the protocol {case.protocol} is no longer configured; restore it and send the series again"
            raise Refused(Reason.NO_PROTOCOL, sentence)
        return protocol, [bench.spool.instance_path(instance.digest) for instance in queries.instances_of(tx, case)]


def _load(paths: list[Path], protocol: Protocol, lease: Lease) -> tuple[CtSeries, CtVolume, str]:
    effort = Effort()
    with measured(effort):
        slices = []
        for done, path in enumerate(paths, 1):
            slices.append(parse_slice(path))
            lease.progress("read", done, len(paths))
        series = assemble_series(slices, uneven_gaps=protocol.uneven_gaps)
        volume = load_volume(series, on_slice=lambda done, total: lease.progress("load", done, total))
        digest = input_digest(series, volume)
    shape = " x ".join(map(str, volume.hu.shape))
    _remember(lease, "volume_loaded", shape=shape, input_digest=digest, **effort.fields())
    return series, volume, digest


def _segment(model: WarmModel, volume: CtVolume, protocol: Protocol, lease: Lease) -> Segmented:
    """Ask the networks, once it is clear that they draw what the protocol asks for and that the memory will do."""
    manifest = model.package.manifest
    unknown = sorted(set(protocol.asked_of_model) - {roi.name for roi in manifest.rois})
    if unknown:
        sentence = f"the model {manifest.name} does not draw {', '.join(unknown)}; correct the protocol {protocol.name}"
        raise ModelRefused(Reason.MODEL_INVALID, sentence)
    effort = Effort()
    tiles_done = [0] * len(manifest.folds)

    def on_tile(fold: int, done: int, total: int) -> None:
        tiles_done[fold] += 1
        lease.progress("segment", done, total, tiles_done)

    def on_plan(words: str) -> None:
        _remember(lease, "memory_planned", words=words)

    with measured(effort):
        found = segment_within_memory(model, volume, ScanDescription(), on_tile, on_plan)
    if model.steps_taken:
        _remember(lease, "stepped_down", words="; ".join(model.steps_taken))
    fields = {"model": manifest.name, "version": manifest.version, "folds": len(manifest.folds), **effort.fields()}
    networks = [spent.fields() for spent in found.network_effort]
    _remember(lease, "segmented", model_digest=model.package.digest, networks=networks, **fields)
    return found


def _draft(
    bench: Workbench, protocol: Protocol, volume: CtVolume, patient_sex: str, found: Segmented, lease: Lease
) -> Draft:
    """What the model found to the structures that the protocol asks for."""
    effort = Effort()
    with measured(effort):
        lease.progress("structures", 0, len(protocol.rois))
        draft = make_draft(found.masks, volume, protocol, bench.settings, patient_sex)
        lease.progress("structures", len(draft.regions), len(protocol.rois))
    _remember(lease, "masks_decided", volumes=draft.in_words(volume.geometry), **effort.fields())
    if draft.shows_nothing:
        sentence = "none of the protocol's structures was found; check that the scan shows the region of the protocol"
        raise ResultRefused(Reason.NOTHING_FOUND, sentence)
    return draft


def _trace(draft: Draft, series: CtSeries, lease: Lease) -> list[DrawnRoi]:
    effort = Effort()
    traced = []
    with measured(effort):
        for done, region in enumerate(draft.regions, 1):
            traced.append(region.traced(series.geometry))
            lease.progress("contours", done, len(draft.regions))
    count = sum(len(roi.contours.contours) for roi in traced)
    points = sum(len(contour.points_mm) for roi in traced for contour in roi.contours.contours)
    _remember(lease, "contours_traced", contours=count, points=points, **effort.fields())
    return traced


def _write(
    bench: Workbench, protocol: Protocol, series: CtSeries, digest: str, drawn: tuple[Draft, list[DrawnRoi]]
) -> tuple[StructureSet, list[Finding]]:
    """Contours to a checked structure set, and what is worth a look in it.

    One that was made before from all the same things is taken again.
    """
    draft, rois = drawn
    form = bench.settings.planning_system_of(protocol)
    if form.empty_rois == "declare":
        rois = [*rois, *(DrawnRoi(template=one, contours=RoiContours(one.name, ())) for one in draft.missing)]
    provenance = _provenance(bench, protocol, digest, draft)
    structure_set = build_structure_set(series, rois, provenance, form, now_utc().astimezone())
    earlier = bench.spool.result(_result_file(structure_set))
    if earlier is not None:
        structure_set = replace(structure_set, content=earlier)
    masks = [region.mask for region in draft.regions]
    return structure_set, check_structure_set(structure_set.content, series, masks, planning_system=form)


def _write_segmentation(
    bench: Workbench, protocol: Protocol, series: CtSeries, decided: tuple[str, Draft], lease: Lease
) -> ResultObject:
    """Masks to a checked and durable Segmentation; one that was made before is taken again, like a structure set."""
    from appliance.dicom.segmentation_check import check_segmentation
    from appliance.dicom.segmentation_object import SegmentedRoi, build_segmentation

    digest, draft = decided
    regions = [SegmentedRoi(region.template, region.mask, region.recipe) for region in draft.regions]
    effort = Effort()
    with measured(effort):
        provenance = _provenance(bench, protocol, digest, draft)
        made = build_segmentation(series, regions, provenance, now_utc().astimezone())
        earlier = bench.spool.result(_result_file(made))
        if earlier is not None:
            made = replace(made, content=earlier)
        check_segmentation(made.content, series, regions)
        bench.spool.keep_result(_result_file(made), made.content)
    fields = {"segments": made.segments, "frames": made.frames, "size_kb": len(made.content) >> 10, **effort.fields()}
    _remember(lease, "segmentation_written", sop_instance_uid=made.sop_instance_uid, sha256=made.digest, **fields)
    return made


def _provenance(bench: Workbench, protocol: Protocol, digest: str, draft: Draft) -> Provenance:
    package = bench.model(protocol.model).package
    return Provenance(
        input_digest=digest,
        model_name=package.manifest.name,
        model_version=package.manifest.version,
        model_digest=package.digest,
        protocol=protocol.name,
        label=protocol.label,
        appliance_version=__version__,
        station_name=bench.settings.appliance.station_name,
        recipe_digest=recipe_digest(protocol, bench.settings.planning_system_of(protocol)),
        not_found=tuple(template.name for template in draft.missing),
    )


def _result_file(result: ResultObject) -> str:
    return f"{result.sop_instance_uid}.dcm"


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
        Result(kind=kind, sop_instance_uid=one.sop_instance_uid, digest=one.digest, file=_result_file(one))
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
