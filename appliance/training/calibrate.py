"""A calibrated version of a model package: the same networks, and limits chosen on scans whose truth is known.

The package that was calibrated stays as it is. The new one has a higher version and therefore another digest, so that
every result says by which limits it was flagged; `calibration.json` in it says what they were chosen on.
"""

import json
import math
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from appliance.errors import ModelRefused, Reason
from appliance.phantoms.faults import Fault
from appliance.segmentation.ensemble import Ensemble
from appliance.segmentation.model_package import ModelPackage, load_package
from appliance.training.calibration import Calibration, calibration_of, judged_by
from appliance.training.observing import Case, CaseObservation, observe
from appliance.training.performance import Judged, Performance, performance_of

PARTS = 5
"""The cases are judged in five parts, each by limits that were chosen without it."""


@dataclass(frozen=True)
class Report:
    """What a calibration chose, and what it is worth.

    Attributes:
        calibration: the limits, chosen on all cases.
        cases: how many cases were used, with and without faults.
        clean: how many of them without.
        on_itself: how the limits do on the cases that they were chosen on; there no failure is silent, by design.
        on_others: how limits do that were chosen without the case in hand: what to expect of them.
        structures: the latter for each structure.
    """

    calibration: Calibration
    cases: int
    clean: int
    on_itself: Performance
    on_others: Performance
    structures: dict[str, Performance]


def observe_all(
    ensemble: Ensemble, cases: Iterable[Case], on_case: Callable[[CaseObservation], None] = lambda _: None
) -> list[CaseObservation]:
    """Segment every case; `on_case` is called after each.

    Raises:
        Refused: a case cannot be read, or is outside the model's limits.
    """
    observed = []
    for case in cases:
        observed.append(observe(ensemble, case))
        on_case(observed[-1])
    return observed


def report_on(cases: Sequence[CaseObservation]) -> Report:
    """Choose limits on all cases, and see what such limits are worth on cases that they were not chosen on.

    Raises:
        ModelRefused: MODEL_INVALID, no structure of the model is in the truth of any clean case.
    """
    calibration = calibration_of(cases)
    if not calibration.quality:
        raise ModelRefused(
            Reason.MODEL_INVALID,
            "none of the model's structures is drawn in these cases, so that nothing can be calibrated; "
            "give cases (--cases) whose structures have the model's names",
        )
    judged = _judged_by_others(cases)
    names = list(calibration.quality)
    return Report(
        calibration,
        len(cases),
        sum(case.fault is Fault.CLEAN for case in cases),
        performance_of(judged_by(calibration, cases)),
        performance_of([one for each in judged.values() for one in each]),
        {name: performance_of(judged[name]) for name in names if judged.get(name)},
    )


def write_calibrated(package: ModelPackage, folder: Path, version: str, report: Report) -> ModelPackage:
    """Write the calibrated version of a package into an empty folder, and check it.

    Args:
        package: what was calibrated; only read.
        folder: where to write.
        version: of the new one.
        report: what was chosen.

    Raises:
        ModelRefused: the networks are no longer those of the package.
    """
    source = package.fold_paths[0].parent
    for path in source.iterdir():
        if path.is_file() and path.name not in ("manifest.json", "calibration.json"):
            shutil.copyfile(path, folder / path.name)
    raw = json.loads((source / "manifest.json").read_bytes())
    _write_json(folder / "manifest.json", calibrated_manifest(raw, report.calibration, version))
    figures = {
        "cases": report.cases,
        "clean": report.clean,
        "on_itself": _plain(report.on_itself),
        "on_others": _plain(report.on_others),
    }
    _write_json(folder / "calibration.json", figures)
    return load_package(folder)


def calibrated_manifest(raw: dict[str, Any], calibration: Calibration, version: str) -> dict[str, Any]:
    """A manifest with other limits of quality and another version, as plain JSON values; all else stays."""
    rois = []
    for roi in raw["rois"]:
        limits = calibration.quality.get(roi["name"])
        chosen = json.loads(limits.model_dump_json(exclude_none=True)) if limits is not None else {}
        rois.append({**roi, "quality": chosen} if chosen else roi)
    percentiles = [json.loads(one.model_dump_json()) for one in calibration.hu_percentiles]
    made = {**raw, "version": version, "rois": rois, "limits": {**raw["limits"], "hu_percentiles": percentiles}}
    if calibration.max_draft_entropy is not None:
        made["max_draft_entropy"] = calibration.max_draft_entropy
    return made


def next_version(version: str, taken: Iterable[str]) -> str:
    """The next free minor version: 1.0.0 becomes 1.1.0."""
    major, minor, _ = (int(part) for part in version.split("."))
    used = set(taken)
    while f"{major}.{minor + 1}.0" in used:
        minor += 1
    return f"{major}.{minor + 1}.0"


def _judged_by_others(cases: Sequence[CaseObservation]) -> dict[str, list[Judged]]:
    """Every structure flagged by limits that were chosen without its case, by the structure's name."""
    names = list(dict.fromkeys(case.case for case in cases))
    part_of = {name: index % PARTS for index, name in enumerate(names)}
    judged: dict[str, list[Judged]] = {}
    for part in range(min(PARTS, len(names))):
        rest = [case for case in cases if part_of[case.case] != part]
        calibration = calibration_of(rest)
        for case in cases:
            if part_of[case.case] == part:
                for one, verdict in zip(case.rois, judged_by(calibration, [case]), strict=True):
                    judged.setdefault(one.roi, []).append(verdict)
    return judged


def _plain(performance: Performance) -> dict[str, Any]:
    """As JSON values, which know no "not a number"."""
    values = asdict(performance).items()
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values}


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
