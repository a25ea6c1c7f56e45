"""`delineate models calibrate`: limits of quality for a model of this box, in a version of its own."""

import math
from collections.abc import Callable
from pathlib import Path

from rich.table import Table

from appliance.running.model_changes import note_event
from appliance.segmentation.model_package import digest_of, load_package
from appliance.segmentation.opening import open_ensemble
from appliance.settings import Settings
from appliance.spool.model_store import ModelStore, StoredModel
from appliance.training.calibrate import Report, next_version, observe_all, report_on, write_calibrated
from appliance.training.observing import (
    CaseObservation,
    count_hospital_cases,
    count_phantom_cases,
    hospital_cases,
    phantom_cases,
)

OnCase = Callable[[int, int, str], None]
"""Called with (cases done, cases in all, what the last one was)."""


def calibrate(
    settings: Settings, model: StoredModel, source: Path | range, on_case: OnCase
) -> tuple[StoredModel, Report]:
    """Calibrate one version of a model, and put the new version beside it; it is not active by that.

    Args:
        settings: of this box.
        model: what to calibrate; it stays as it is.
        source: a folder of cases, or the seeds of phantoms.
        on_case: told after each case.

    Raises:
        Refused: the package cannot be used, or a case cannot be read.
    """
    package = load_package(model.folder)
    ensemble = open_ensemble(package, settings.worker.threads)
    cases = hospital_cases(source) if isinstance(source, Path) else phantom_cases(source)
    total = count_hospital_cases(source) if isinstance(source, Path) else count_phantom_cases(source)
    done = 0

    def note(case: CaseObservation) -> None:
        nonlocal done
        done += 1
        on_case(done, total, f"{case.case}, {case.fault}")

    report = report_on(observe_all(ensemble, cases, note))
    store = ModelStore.of(settings)
    version = next_version(package.manifest.version, [one.version for one in store.versions(model.name)])
    with store.incoming() as folder:
        write_calibrated(package, folder, version, report)
        made = store.take_in(folder)
    fields = {"name": made.name, "version": made.version, "before": package.manifest.version}
    note_event(settings, "model_calibrated", **fields, cases=report.cases, digest=digest_of(made.folder))
    return made, report


def calibration_table(report: Report) -> Table:
    """The limits of each structure, and what such limits are worth on cases that they were not chosen on."""
    table = Table(
        "Structure", "Cases", "Dice < 0.8", "of these flagged", "false alarms on clean scans", "Fold Dice", "Entropy",
        "Doubt", "Volume cm³", title="Limits, and how such limits do on other cases", title_justify="left",
    )  # fmt: skip
    for name, limits in report.calibration.quality.items():
        done = report.structures.get(name)
        volume = "" if limits.volume_cm3 is None else f"{limits.volume_cm3[0]:.0f} to {limits.volume_cm3[1]:.0f}"
        figures = (
            ("", "", "", "")
            if done is None
            else (f"{done.structures}", f"{done.failed}", _percent(done.sensitivity), _percent(done.false_alarms))
        )
        numbers = (
            "" if value is None else f"{sign} {value:.3f}"
            for sign, value in (("≥", limits.min_fold_dice), ("≤", limits.max_entropy), ("≤", limits.max_doubt))
        )
        table.add_row(name, *figures, *numbers, volume)
    return table


def calibration_words(report: Report) -> list[str]:
    """What the calibration is worth as a whole, in sentences."""
    others = report.on_others
    sentences = [
        (
            f"{report.cases} cases, {report.clean} of them clean: {others.structures} structures, "
            f"{others.failed} of them with Dice below 0.8."
        ),
        (
            f"On cases that the limits were not chosen on: area under the curve {others.auc:.3f}, "
            f"{_percent(others.sensitivity)} of the failures flagged, {_percent(others.specificity)} of the good "
            f"structures not flagged, false alarms on clean scans {_percent(others.false_alarms)}."
        ),
        (
            f"Mean error (1 - Dice) {others.risk[1]:.3f} over all, {others.risk[0]:.3f} over the half with the least "
            f"doubt; area under the risk-coverage curve {others.aurc:.3f}."
        ),
    ]
    if others.silent:
        sentences.append(f"Failed and not flagged: {'; '.join(others.silent)}.")
    return sentences


def _percent(share: float) -> str:
    return "none" if math.isnan(share) else f"{100 * share:.0f} %"
