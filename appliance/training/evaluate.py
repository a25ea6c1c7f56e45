"""What a package is worth: Dice and surface distance per ROI, through the same engine that the appliance runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from appliance.clock import Effort, measured
from appliance.dicom.ct_volume import CtVolume
from appliance.dicom.geometry import SeriesGeometry
from appliance.dicom.scan_description import ScanDescription
from appliance.phantoms import make_phantom
from appliance.segmentation.agreement import dice, hausdorff95_mm
from appliance.segmentation.model_package import load_package
from appliance.segmentation.opening import open_ensemble
from appliance.segmentation.segment import segment

Masks = Mapping[str, npt.NDArray[np.bool_]]
_PHANTOM_SPACING_MM = (3.0, 2.0, 2.0)
"""Grid of the held-out phantoms: slices as a planning CT has them, pixels coarse enough for thirty phantoms."""


@dataclass(frozen=True, slots=True)
class Score:
    """One ROI of one scan: overlap and surface distance of what was found against the truth, and both volumes."""

    case: str
    roi: str
    dice: float
    hausdorff95_mm: float
    found_ml: float
    truth_ml: float


@dataclass(frozen=True, slots=True)
class Summary:
    """One ROI over all scans that hold it."""

    roi: str
    cases: int
    mean_dice: float
    least_dice: float
    median_hausdorff95_mm: float


class Judge:
    """A loaded package, and what segmenting with it has cost so far."""

    def __init__(self, package_folder: Path, threads: int = 1) -> None:
        self._ensemble = open_ensemble(load_package(package_folder), threads)
        self.effort = Effort()

    def score(self, case: str, volume: CtVolume, truth: Masks) -> list[Score]:
        """Segment one scan and compare every ROI of the truth; an ROI that was not found scores 0."""
        with measured(self.effort):
            found = {mask.name: mask for mask in segment(self._ensemble, volume, ScanDescription()).masks}
        spacing = volume.geometry.spacing_mm
        millilitres = float(np.prod(spacing)) / 1000
        scores = []
        for roi, expected in truth.items():
            mask = found[roi].in_grid(volume.geometry.shape) if roi in found else np.zeros_like(expected)
            distance = hausdorff95_mm(mask, expected, spacing)
            volumes = float(mask.sum()) * millilitres, float(expected.sum()) * millilitres
            scores.append(Score(case, roi, dice(mask, expected), distance, *volumes))
        return scores


def score_phantoms(judge: Judge, seeds: Sequence[int], on_progress: Callable[[int, int], None]) -> list[Score]:
    """Score the package on the phantoms of these seeds; they must not have been trained on."""
    scores = []
    for done, seed in enumerate(seeds, start=1):
        phantom = make_phantom(seed, spacing_mm=_PHANTOM_SPACING_MM)
        geometry = SeriesGeometry.axial(phantom.hu.shape, phantom.spacing_mm, phantom.origin_mm)
        scores += judge.score(str(seed), CtVolume(phantom.hu, geometry), phantom.truth)
        on_progress(done, len(seeds))
    return scores


def summarise(scores: Sequence[Score]) -> list[Summary]:
    """Mean and worst Dice and median surface distance of each ROI, in the order in which the ROIs first appear."""
    summaries = []
    for roi in dict.fromkeys(score.roi for score in scores):
        of_roi = [score for score in scores if score.roi == roi]
        values = [score.dice for score in of_roi]
        distance = float(np.median([score.hausdorff95_mm for score in of_roi]))
        summaries.append(Summary(roi, len(of_roi), float(np.mean(values)), min(values), distance))
    return summaries
