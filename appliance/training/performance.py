"""How well flags find what is wrong: area under the curve, silent failures, false alarms, risk against coverage."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

GOOD_DICE = 0.8
"""A structure below this has failed."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One structure of one case, as it was found and as it was flagged.

    Attributes:
        what: case, fault and structure, for people.
        clean: whether nothing was wrong with the scan.
        dice: with the truth.
        score: how suspicious it is; infinite where nothing was found and the result says so.
        flagged: whether somebody was told to look.
    """

    what: str
    clean: bool
    dice: float
    score: float
    flagged: bool

    @property
    def failed(self) -> bool:
        """Whether it is too bad to be used."""
        return self.dice < GOOD_DICE


@dataclass(frozen=True, slots=True)
class Performance:
    """What flags are worth on some structures.

    Attributes:
        structures: how many there were.
        failed: how many of them failed.
        auc: chance that a failed structure has a higher score than a good one; not a number without either.
        sensitivity: share of the failed that were flagged.
        specificity: share of the good that were not.
        silent: the failed that were not flagged.
        false_alarms: share of the good structures of clean scans that were flagged.
        risk: mean of (1 - Dice) of the least suspicious half, and of all.
        aurc: area under the curve of that risk against the share that is trusted, least suspicious first.
    """

    structures: int
    failed: int
    auc: float
    sensitivity: float
    specificity: float
    silent: tuple[str, ...]
    false_alarms: float
    risk: tuple[float, float]
    aurc: float


def performance_of(judged: Sequence[Judged]) -> Performance:
    """Measure flags on structures whose truth is known."""
    failed = np.array([one.failed for one in judged])
    flagged = np.array([one.flagged for one in judged])
    good_and_clean = np.array([one.clean for one in judged]) & ~failed
    score = np.array([one.score for one in judged])
    order = np.argsort(score, kind="stable")
    risks = np.cumsum(1 - np.array([one.dice for one in judged])[order]) / np.arange(1, len(judged) + 1)
    return Performance(
        structures=len(judged),
        failed=int(failed.sum()),
        auc=area_under_curve(score, failed),
        sensitivity=_share(flagged, failed),
        specificity=_share(~flagged, ~failed),
        silent=tuple(one.what for one in judged if one.failed and not one.flagged),
        false_alarms=_share(flagged, good_and_clean),
        risk=(float(risks[(len(judged) - 1) // 2]), float(risks[-1])),
        aurc=float(risks.mean()),
    )


def area_under_curve(score: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_]) -> float:
    """Chance that a positive has a higher score than a negative, ties by half (Mann and Whitney)."""
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return float("nan")
    ranks = stats.rankdata(score)
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _share(what: npt.NDArray[np.bool_], of: npt.NDArray[np.bool_]) -> float:
    return float(what[of].mean()) if of.any() else float("nan")
