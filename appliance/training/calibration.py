"""From observations on scans whose truth is known to the limits from which on a structure is flagged.

Clean scans say what is usual: volumes, agreement, entropy, Hounsfield units, each with some room beyond what was seen;
and the doubt, which takes several signs together, without any. Whatever failed within all that is caught by a limit on
the doubt: the highest one that leaves none of it out, with a small margin below it. So no failure of the calibration
goes unflagged, and as few good structures as this allows are flagged with them. For a structure that the model draws
badly on clean scans this means a flag nearly always, which is what should be said of it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from appliance.phantoms.faults import Fault
from appliance.segmentation.manifest import HuPercentile, QualityLimits
from appliance.segmentation.quality import beyond_limits, of_the_draft
from appliance.training.observing import PERCENTILES, CaseObservation, Observation
from appliance.training.performance import GOOD_DICE, Judged

VOLUME_ROOM = 1.3
"""Factor by which volumes may go beyond those of the clean scans, either way."""

ROOM = 0.25
"""Part of the largest disagreement, or entropy, of the clean scans by which it may be exceeded."""

HU_ROOM = 0.15, 5.0
"""Part of the range of the clean scans, and HU, by which a percentile may leave it on either side."""

GUARD = 0.02
"""What is this little better than bad enough counts as failed in the calibration: the next scan is another one."""

DOUBT_MARGIN = 0.05
"""How far below the least doubt of a failure the limit lies, as a part of it."""


@dataclass(frozen=True)
class Calibration:
    """What a calibration chose.

    Attributes:
        quality: limits for each structure.
        max_draft_entropy: limit on the mean entropy of all structures.
        hu_percentiles: what the HU histogram of the body may look like.
    """

    quality: dict[str, QualityLimits]
    max_draft_entropy: float | None
    hu_percentiles: tuple[HuPercentile, ...]


def calibration_of(cases: Sequence[CaseObservation]) -> Calibration:
    """Choose limits.

    Args:
        cases: clean and spoiled; structures that no clean scan shows get no limits.
    """
    clean = [case for case in cases if case.fault is Fault.CLEAN]
    entropies = [case.draft_entropy for case in clean if case.draft_entropy is not None]
    max_draft_entropy = _rounded_up(max(entropies) * (1 + ROOM)) if entropies else None
    quality = {}
    for name in dict.fromkeys(one.roi for case in clean for one in case.rois):
        usual = _usual([one for case in clean for one in case.rois if one.roi == name])
        quality[name] = _with_doubt(usual, name, cases, max_draft_entropy)
    return Calibration(quality, max_draft_entropy, _hu_ranges(clean))


def judged_by(calibration: Calibration, cases: Iterable[CaseObservation]) -> list[Judged]:
    """Flag what was observed by the limits of a calibration; not found counts as told, as every result says so."""
    judged = []
    for case in cases:
        whole = any(of_the_draft(case.draft_entropy, calibration.max_draft_entropy))
        for one in case.rois:
            limits = calibration.quality.get(one.roi, QualityLimits())
            flagged = whole or one.quality is None or any(beyond_limits(one.quality, limits))
            judged.append(judged_as(one, flagged=flagged))
    return judged


def judged_as(one: Observation, *, flagged: bool) -> Judged:
    """One observation with its score: its doubt, infinite where nothing was found."""
    doubt = None if one.quality is None else one.quality.doubt
    score = float("inf") if doubt is None else doubt
    return Judged(f"{one.case}, {one.fault}: {one.roi}", one.fault is Fault.CLEAN, one.dice, score, flagged)


def _usual(clean: Sequence[Observation]) -> QualityLimits:
    """Limits around all that was seen of one structure on clean scans."""
    found = [one.quality for one in clean if one.quality is not None]
    volumes = [one.volume_cm3 for one in found]
    folds = [one.fold_dice for one in found if one.fold_dice is not None]
    entropies = [one.entropy for one in found if one.entropy is not None]
    doubts = [one.doubt for one in found if one.doubt is not None]
    return QualityLimits(
        max_doubt=_rounded_up(max(doubts)) if doubts else None,
        min_fold_dice=max(0.0, round(1 - (1 - min(folds)) * (1 + ROOM), 4)) if folds else None,
        max_entropy=_rounded_up(max(entropies) * (1 + ROOM)) if entropies else None,
        volume_cm3=(round(min(volumes) / VOLUME_ROOM, 1), round(max(volumes) * VOLUME_ROOM, 1)) if volumes else None,
    )


def _with_doubt(
    usual: QualityLimits, name: str, cases: Sequence[CaseObservation], max_draft_entropy: float | None
) -> QualityLimits:
    """Add the limit on the doubt that catches every failure which the usual limits let pass."""
    missed = [
        one.quality.doubt
        for case in cases
        for one in case.rois
        if one.roi == name and one.dice < GOOD_DICE + GUARD and one.quality is not None
        if one.quality.doubt is not None
        if not any(of_the_draft(case.draft_entropy, max_draft_entropy)) and not any(beyond_limits(one.quality, usual))
    ]
    if not missed:
        return usual
    return usual.model_copy(update={"max_doubt": round(min(missed) * (1 - DOUBT_MARGIN), 4)})


def _hu_ranges(clean: Sequence[CaseObservation]) -> tuple[HuPercentile, ...]:
    if not clean:
        return ()
    found = np.array([case.body_hu for case in clean])
    low, high = found.min(axis=0), found.max(axis=0)
    room = HU_ROOM[0] * (high - low) + HU_ROOM[1]
    return tuple(
        HuPercentile(percentile=percentile, hu=(float(np.floor(least)), float(np.ceil(most))))
        for percentile, least, most in zip(PERCENTILES, low - room, high + room, strict=True)
    )


def _rounded_up(value: float) -> float:
    return float(np.ceil(value * 1e4) / 1e4)
