"""How sure the ensemble is of each structure, and which ones need a careful look.

Three signs go together, because each misses failures that another sees: the folds differ, the probabilities within
the structure are spread, or those of the whole draft are, as on a scan that lies the wrong way round. *Doubt* is their
geometric mean. The limits are the manifest's, chosen on cases whose truth is known (`training/calibrate.py`);
docs/quality-flags.md says how well that works.

A flag never changes a structure or its name. It asks for a look, and no missing flag makes a look superfluous.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from appliance.dicom.geometry import SeriesGeometry
from appliance.dicom.roi import RoiMask
from appliance.segmentation.ensemble import Labelled
from appliance.segmentation.manifest import Manifest, QualityLimits, Range, RoiRule
from appliance.segmentation.neighbours import touching
from appliance.segmentation.roi_rules import midline_mm, on_side

LEAST_DISAGREEMENT = 1e-3
"""Folds that agree better than by 0.999 leave no less doubt: the geometric mean of nothing would say nothing."""


@dataclass(frozen=True, slots=True)
class RoiQuality:
    """What is known about one structure of a draft.

    Attributes:
        name: of the ROI, as the manifest has it.
        fold_dice: mean Dice of all pairs of folds; None where there is only one.
        entropy: mean entropy of its voxels in nats.
        volume_cm3: its volume.
        flags: one sentence for each reason to look at it carefully; none where there is no reason.
        doubt: one number for all signs, to sort structures by; 0 is none. None where nothing is known.
    """

    name: str
    fold_dice: float | None
    entropy: float | None
    volume_cm3: float
    flags: tuple[str, ...] = ()
    doubt: float | None = None

    def figures(self) -> dict[str, float | None]:
        """The numbers, rounded, for records."""
        values = {"fold_dice": self.fold_dice, "entropy": self.entropy, "doubt": self.doubt}
        rounded = {name: None if value is None else round(value, 4) for name, value in values.items()}
        return {**rounded, "volume_cm3": round(self.volume_cm3, 2)}


def assess(
    masks: Sequence[RoiMask], labelled: Labelled, geometry: SeriesGeometry, manifest: Manifest
) -> tuple[RoiQuality, ...]:
    """Say of each ROI that was found how sure the ensemble is of it, and what is odd about it.

    Args:
        masks: the ROIs.
        labelled: what they were made from.
        geometry: of the CT.
        manifest: its limits and rules.
    """
    rules = {roi.name: roi for roi in manifest.rois}
    found = {mask.name: mask for mask in masks}
    signs = {name: _signs(rules[name], labelled, manifest) for name in found}
    draft_entropy = mean_known([entropy for _, entropy in signs.values()])
    whole = tuple(of_the_draft(draft_entropy, manifest.max_draft_entropy))
    assessed = []
    for name, (fold_dice, entropy) in signs.items():
        doubt = doubt_of(fold_dice, entropy, draft_entropy)
        plain = RoiQuality(name, fold_dice, entropy, found[name].volume_cm3(geometry), doubt=doubt)
        flags = (*beyond_limits(plain, rules[name].quality), *whole, *_odd_neighbours(rules[name], found))
        assessed.append(RoiQuality(name, fold_dice, entropy, plain.volume_cm3, flags, doubt))
    return tuple(assessed)


def doubt_of(fold_dice: float | None, entropy: float | None, draft_entropy: float | None) -> float | None:
    """One number for what is known of disagreement and entropies; None where nothing is."""
    disagreement = None if fold_dice is None else 1 - fold_dice + LEAST_DISAGREEMENT
    signs = [max(sign, LEAST_DISAGREEMENT) for sign in (disagreement, entropy, draft_entropy) if sign is not None]
    return float(np.exp(np.mean(np.log(signs)))) if signs else None


def mean_known(values: Sequence[float | None]) -> float | None:
    """The mean of those that are known."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _signs(roi: RoiRule, labelled: Labelled, manifest: Manifest) -> tuple[float | None, float | None]:
    """Fold Dice and mean entropy of a ROI; of one of a pair, on its own side of the midline."""
    agreement, where = labelled.agreement, None
    if roi.side is not None:
        middle_mm = midline_mm(roi, labelled.labels, labelled.grid, manifest)
        if middle_mm is None:
            return None, None
        where = on_side(agreement.left_right_mm, middle_mm, roi, labelled.grid)
    numbers = manifest.numbers(roi.classes)
    return agreement.pairwise_dice(numbers, where), agreement.mean_entropy(numbers, where)


def beyond_limits(found: RoiQuality, limits: QualityLimits) -> Iterator[str]:
    """Say which limits of its own a ROI does not keep."""
    if _below(found.fold_dice, limits.min_fold_dice):
        yield f"the folds agree by {found.fold_dice:.2f} only, {limits.min_fold_dice:.2f} or more is usual"
    if _above(found.entropy, limits.max_entropy):
        yield f"the model wavers (entropy {found.entropy:.2f} nats, up to {limits.max_entropy:.2f} is usual)"
    if _above(found.doubt, limits.max_doubt):
        yield f"the model is less sure of it than usual (doubt {found.doubt:.3f}, up to {limits.max_doubt:.3f})"
    if limits.volume_cm3 is not None and not _within(found.volume_cm3, limits.volume_cm3):
        low, high = limits.volume_cm3
        yield f"its volume is {found.volume_cm3:.0f} cm3, usually {low:.0f} to {high:.0f} cm3"


def of_the_draft(entropy: float | None, limit: float | None) -> Iterator[str]:
    """Say whether the mean entropy of all ROIs is beyond its limit."""
    if _above(entropy, limit):
        yield (
            f"the model wavers on this scan as a whole (entropy {entropy:.2f} nats, up to {limit:.2f} is usual); "
            "check that it is the right part of the body, the right way round"
        )


def _odd_neighbours(roi: RoiRule, found: dict[str, RoiMask]) -> Iterator[str]:
    mask = found[roi.name]
    for name in roi.must_touch:
        if name not in found:
            yield f"it has to touch {name}, which was not found"
        elif not touching(mask, found[name]):
            yield f"it does not touch {name}"
    for name in roi.must_not_touch:
        if name in found and touching(mask, found[name]):
            yield f"it touches {name}"


def _below(value: float | None, limit: float | None) -> bool:
    return value is not None and limit is not None and value < limit


def _above(value: float | None, limit: float | None) -> bool:
    return value is not None and limit is not None and value > limit


def _within(value: float, limits: Range) -> bool:
    return limits[0] <= value <= limits[1]
