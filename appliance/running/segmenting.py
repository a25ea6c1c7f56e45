"""`delineate segment`: the pure middle for one folder of CT files, without any service, database or broker."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from appliance.casework.contouring import (
    Kept,
    OnStep,
    Scan,
    Writing,
    load_scan,
    merge,
    provenance_of,
    refuse_empty,
    refuse_undrawn,
    trace_regions,
)
from appliance.casework.draft import Draft, make_draft
from appliance.casework.warm_models import warm_model
from appliance.clock import now_utc
from appliance.dicom.findings import Finding
from appliance.dicom.identity import read_identity
from appliance.dicom.roi_elements import DrawnRoi
from appliance.errors import ApplianceError, SliceRefused
from appliance.running.ct_folder import CtFolder, sort_folder
from appliance.running.demo.picture import draw
from appliance.running.protocols_shown import find_protocol
from appliance.running.whole_model import everything_of
from appliance.segmentation.model_package import ModelPackage, load_package
from appliance.segmentation.opening import WarmModel
from appliance.segmentation.segment import Segmented
from appliance.segmentation.within_memory import segment_within_memory
from appliance.settings import Protocol, Settings
from appliance.spool.model_store import ModelStore

STRUCTURE_SET, SEGMENTATION, QUALITY, PICTURE = "structure_set.dcm", "segmentation.dcm", "quality.json", "contours.png"

FIGURES = {"fold_dice": "Dice of the folds", "entropy": "Entropy", "doubt": "Doubt"}
"""What is known of a structure that the model itself drew, as people read it."""

STEPS = {
    "engines": "Engines examined",
    "find": "Files looked at",
    "read": "Slice headers read",
    "load": "Slices decoded",
    "structures": "Structures decided",
    "contours": "Structures traced",
}


@dataclass(frozen=True)
class Order:
    """What is asked for.

    Attributes:
        folder: with the CT files.
        out: folder for the results.
        model: name of the model; those of the protocol when empty.
        version: of the model; the active one when None.
        protocol: which structures in which form; everything that the model draws when None.
        series_uid: Series Instance UID, where the folder holds several series.
        with_segmentation: whether a DICOM Segmentation is written beside the structure set.
    """

    folder: Path
    out: Path
    model: str = ""
    version: str | None = None
    protocol: str | None = None
    series_uid: str | None = None
    with_segmentation: bool = False


@dataclass(frozen=True, eq=False)
class Outcome:
    """What was made.

    Attributes:
        ran: what each model ran on, how its memory was planned, and what was given up on the way, in sentences.
    """

    models: Mapping[str, WarmModel]
    protocol: Protocol
    scan: Scan
    draft: Draft
    ran: tuple[str, ...]
    findings: tuple[Finding, ...]
    skipped: dict[Path, str]
    files: tuple[Path, ...]


def segment_folder(settings: Settings, order: Order, on_step: OnStep) -> Outcome:
    """Contour the CT series of a folder and write what was found.

    Raises:
        Refused: the series, the model or the result is refused, as the line would.
        ApplianceError: the order cannot be carried out; the sentence says why.
    """
    settings, protocol, models = _opened(settings, order, on_step)
    packages = {name: model.package for name, model in models.items()}
    folder = sort_folder(order.folder, order.series_uid, on_step)
    scan = _load(folder, protocol, on_step)
    asked = {name: _ask(name, models, scan, on_step) for name in models}
    found = merge({name: one for name, (one, _) in asked.items()}, _owners(protocol, packages))
    on_step("structures", 0, len(protocol.rois))
    draft = make_draft(found, scan.volume, protocol, settings, scan.series.patient_sex)
    on_step("structures", len(protocol.rois), len(protocol.rois))
    refuse_empty(draft)
    rois = trace_regions(draft, scan.series, on_step)
    provenance = provenance_of(settings, protocol, packages, scan.digest, draft)
    form = settings.planning_system_of(protocol)
    writing = Writing(provenance, form, now_utc().astimezone(), _kept_in(order.out))
    order.out.mkdir(parents=True, exist_ok=True)
    structure_set, findings = writing.structure_set(scan.series, draft, rois)
    made = {STRUCTURE_SET: structure_set.content}
    if order.with_segmentation or "seg" in protocol.outputs:
        made[SEGMENTATION] = writing.segmentation(scan.series, draft).content
    for name, content in made.items():
        (order.out / name).write_bytes(content)
    _draw(order.out / PICTURE, scan, rois)
    outcome = Outcome(
        models=models,
        protocol=protocol,
        scan=scan,
        draft=draft,
        ran=tuple(words for _, said in asked.values() for words in said),
        findings=tuple(findings),
        skipped=folder.skipped,
        files=tuple(order.out / name for name in (*made, PICTURE, QUALITY)),
    )
    (order.out / QUALITY).write_text(json.dumps(report(outcome), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return outcome


def _opened(settings: Settings, order: Order, on_step: OnStep) -> tuple[Settings, Protocol, dict[str, WarmModel]]:
    """The protocol and the warm models of an order, and settings that know all of its structures."""
    protocol = None if order.protocol is None else find_protocol(settings, order.protocol)
    names = (order.model,) if order.model or protocol is None else protocol.models
    if not names[0]:
        raise ApplianceError("name a model with --model, or a protocol with --protocol")
    if order.version is not None and len(names) > 1:
        raise ApplianceError(f"protocol {order.protocol} has several models; say with --model which --version is meant")
    store = ModelStore.of(settings)
    packages = {name: load_package(store.find(name, order.version).folder) for name in names}
    if protocol is None:
        settings, protocol = everything_of(settings, order.model, packages[order.model].manifest)
    elif order.model:
        choices = tuple(choice.model_copy(update={"model": None}) for choice in protocol.rois)
        protocol = protocol.model_copy(update={"models": names, "rois": choices})
    refuse_undrawn(_owners(protocol, packages), protocol)
    device = settings.worker.devices[0]
    models = {name: warm_model(settings, one, device, partial(on_step, "engines")) for name, one in packages.items()}
    return settings, protocol, models


def _owners(protocol: Protocol, packages: Mapping[str, ModelPackage]) -> dict[str, str]:
    return protocol.drawn_by({name: package.manifest.roi_names for name, package in packages.items()})


def _load(folder: CtFolder, protocol: Protocol, on_step: OnStep) -> Scan:
    read = 0

    def counted(step: str, done: int, total: int) -> None:
        nonlocal read
        read = done if step == "read" else len(folder.paths)
        on_step(step, done, total)

    try:
        return load_scan(folder.paths, counted, uneven_gaps=protocol.uneven_gaps)
    except SliceRefused as refused:
        where = f"{folder.paths[read].name}: " if read < len(folder.paths) else ""
        raise SliceRefused(refused.reason, f"{where}{refused.sentence}") from refused


def _ask(name: str, models: Mapping[str, WarmModel], scan: Scan, on_step: OnStep) -> tuple[Segmented, list[str]]:
    """Ask one of the models, a step for all of its network runs and one for each fold; and say what it ran on."""
    model = models[name]
    done_by = [0] * len(model.package.manifest.folds)
    whose = f" of {name}" if len(models) > 1 else ""

    def on_tile(fold: int, done: int, total: int) -> None:
        done_by[fold] += 1
        on_step(f"Network runs{whose}", done, total)
        if len(done_by) > 1:
            on_step(f"Fold {fold + 1}{whose}, tiles", done_by[fold], max(done_by[fold], total // len(done_by)))

    words = [f"{name} {model.words}"]
    found = segment_within_memory(model, scan.volume, scan.series.description, on_tile, words.append)
    return found, [*words, *model.steps_taken]


def _kept_in(out: Path) -> Kept:
    """The results of an earlier run; from all the same things they are not made anew."""

    def kept(file: str) -> bytes | None:
        for path in (out / STRUCTURE_SET, out / SEGMENTATION):
            if path.is_file():
                try:
                    identity = read_identity(path)
                except SliceRefused:
                    continue  # whatever it is, it is not ours
                if f"{identity.sop_instance_uid}.dcm" == file:
                    return path.read_bytes()
        return None

    return kept


def _draw(path: Path, scan: Scan, rois: Sequence[DrawnRoi]) -> None:
    contours = {one.template.name: one.contours for one in rois}
    colours = {one.template.name: one.template.colour for one in rois}
    draw(path, scan.volume, contours, colours, "Automatic draft, unapproved")


def structures_of(outcome: Outcome) -> list[dict[str, Any]]:
    """What was found: name, volume, and how far the folds agree where the model itself drew it."""
    geometry = outcome.scan.volume.geometry
    return [
        {
            "name": region.template.name,
            "volume_cm3": round(region.mask.volume_cm3(geometry), 2),
            **{name: (region.quality.figures()[name] if region.quality else None) for name in FIGURES},
            "flags": list(region.flags),
            "made_from": list(region.made_from),
        }
        for region in outcome.draft.regions
    ]


def report(outcome: Outcome) -> dict[str, Any]:
    """Everything that is known about a result, for programs; no patient is named."""
    packages = [model.package for model in outcome.models.values()]
    return {
        "models": [
            {"name": one.manifest.name, "version": one.manifest.version, "digest": one.digest} for one in packages
        ],
        "protocol": outcome.protocol.name,
        "ran": list(outcome.ran),
        "input_digest": outcome.scan.digest,
        "warnings": list(outcome.draft.warnings),
        "structures": structures_of(outcome),
        "not_found": [template.name for template in outcome.draft.missing],
        "left_out": [template.name for template in outcome.draft.left_out],
        "worth_a_look": [{"rule": one.rule, "roi": one.roi, "sentence": one.sentence} for one in outcome.findings],
        "skipped": {str(path): why for path, why in outcome.skipped.items()},
        "files": [str(path) for path in outcome.files],
    }


def structures_table(outcome: Outcome) -> Table:
    """What was found, for people."""
    table = Table(title="Structures", title_justify="left")
    table.add_column("Name")
    for heading in ("Volume cm³", *FIGURES.values()):
        table.add_column(heading, justify="right")
    table.add_column("A careful look")
    for line in structures_of(outcome):
        figures = ("" if line[key] is None else f"{line[key]:.3f}" for key in FIGURES)
        flags = Text("; ".join(line["flags"]), style="yellow")
        table.add_row(Text(line["name"]), f"{line['volume_cm3']:.1f}", *figures, flags)
    for template in outcome.draft.missing:
        table.add_row(Text(template.name), "not found")
    return table
