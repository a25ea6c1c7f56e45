"""How far the folds of an ensemble agree, kept as counts: no volume more, whatever their number.

The mean Dice of all pairs of folds is the most robust simple sign of a failed segmentation (Zenk et al. 2024,
arXiv 2406.03323); the entropy of the mean prediction within a structure comes close (Zhang et al. 2026).

Counts are kept for each position along the patient's left-right axis, so that one of a pair, which the network
knows as a single class, has figures of its own.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Where = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class FoldAgreement:
    """Voxels of the working grid, counted.

    Attributes:
        left_right_mm: position of each column of counts along the series axis that runs between left and right.
        regions: the sets of classes that were counted; index along the first axis of all counts.
        sizes: voxels that each fold put into each region, (regions, folds, columns).
        shared: voxels that both folds of a pair did, (regions, pairs, columns); pairs as `pairs_of` lists them.
        voxels: voxels that the ensemble put into each region, (regions, columns).
        entropy: sum of their entropies in nats, (regions, columns).
    """

    left_right_mm: NDArray[np.float64]
    regions: tuple[frozenset[int], ...]
    sizes: Counts
    shared: Counts
    voxels: Counts
    entropy: NDArray[np.float64]

    def pairwise_dice(self, classes: Sequence[int], where: Where | None = None) -> float | None:
        """Mean Dice of all pairs of folds; None with one fold alone, or where none of them found anything.

        Args:
            classes: the numbers of a structure's classes, a region that was counted.
            where: columns that belong to it; all when absent.
        """
        region = self.regions.index(frozenset(classes))
        columns = slice(None) if where is None else where
        sizes = self.sizes[region][:, columns].sum(axis=1)
        shared = self.shared[region][:, columns].sum(axis=1)
        totals = np.array([sizes[first] + sizes[second] for first, second in pairs_of(len(sizes))])
        met = totals > 0
        return float(np.mean(2.0 * shared[met] / totals[met])) if met.any() else None

    def mean_entropy(self, classes: Sequence[int], where: Where | None = None) -> float | None:
        """Mean entropy in nats of the voxels that the ensemble put into a structure; None where there are none."""
        region = self.regions.index(frozenset(classes))
        columns = slice(None) if where is None else where
        voxels = int(self.voxels[region][columns].sum())
        return float(self.entropy[region][columns].sum()) / voxels if voxels else None


def pairs_of(folds: int) -> list[tuple[int, int]]:
    """All pairs of folds, in the order of the counts."""
    return list(itertools.combinations(range(folds), 2))


class AgreementTally:
    """Counts while tiles are decided; every voxel must be handed over once.

    Args:
        regions: sets of classes to count; single classes are counted fastest.
        classes: how many classes there are.
        folds: how many folds.
        columns: voxels of the working grid along the left-right axis.
    """

    def __init__(self, regions: Sequence[frozenset[int]], classes: int, folds: int, columns: int) -> None:
        self.regions = tuple(dict.fromkeys(regions))
        self._columns = columns
        self._sizes = np.zeros((len(self.regions), folds, columns), np.int64)
        self._shared = np.zeros((len(self.regions), len(pairs_of(folds)), columns), np.int64)
        self._voxels = np.zeros((len(self.regions), columns), np.int64)
        self._entropy = np.zeros((len(self.regions), columns))
        self._tables = np.zeros((len(self.regions), classes), np.bool_)
        for index, region in enumerate(self.regions):
            self._tables[index, list(region)] = True
        self._classes = classes

    def folds_decided(self, labels: Sequence[NDArray[np.uint8]], first_column: int) -> None:
        """Count what the folds decided on some voxels.

        Args:
            labels: for each fold that was asked the class of each voxel, (z, y, x) with left-right last. Folds that
                were not asked count as the first one, with whom they would have agreed.
            first_column: the column of the grid that index 0 of the last axis is.
        """
        folds = self._sizes.shape[1]
        histograms = [self._by_class(one, first_column) for one in labels]
        for fold in range(folds):
            self._sizes[:, fold] += self._tables @ histograms[fold if fold < len(labels) else 0]
        for pair, (first, second) in enumerate(pairs_of(folds)):
            one = labels[first if first < len(labels) else 0]
            other = labels[second if second < len(labels) else 0]
            self._shared[:, pair] += self._both(one, other, first_column)

    def ensemble_decided(self, labels: NDArray[np.uint8], entropy: NDArray[np.floating], first_column: int) -> None:
        """Count what the ensemble decided on some voxels, and how sure it was: two arrays of one shape (…, x)."""
        self._voxels += self._tables @ self._by_class(labels, first_column)
        sums = np.bincount(self._keys(labels, first_column), entropy.ravel(), self._classes * self._columns)
        self._entropy += self._tables @ sums.reshape(self._classes, self._columns)

    def result(self, left_right_mm: NDArray[np.float64]) -> FoldAgreement:
        """What was counted so far."""
        return FoldAgreement(left_right_mm, self.regions, self._sizes, self._shared, self._voxels, self._entropy)

    def _keys(self, labels: NDArray[np.uint8], first_column: int) -> NDArray[np.int64]:
        columns = np.arange(first_column, first_column + labels.shape[-1])
        return (labels.astype(np.int64) * self._columns + columns).ravel()

    def _by_class(self, labels: NDArray[np.uint8], first_column: int) -> Counts:
        counted = np.bincount(self._keys(labels, first_column), minlength=self._classes * self._columns)
        return np.asarray(counted.reshape(self._classes, self._columns))

    def _both(self, one: NDArray[np.uint8], other: NDArray[np.uint8], first_column: int) -> Counts:
        """Voxels that two folds both put into each region, (regions, columns)."""
        equal = one == other
        columns = np.broadcast_to(np.arange(first_column, first_column + one.shape[-1]), one.shape)
        keys = one[equal].astype(np.int64) * self._columns + columns[equal]
        same = np.bincount(keys, minlength=self._classes * self._columns).reshape(self._classes, self._columns)
        shared = self._tables @ same
        # Two different classes of one region are agreement as well.
        first, second, where = one[~equal], other[~equal], columns[~equal]
        for index, region in enumerate(self.regions):
            if len(region) > 1 and first.size:
                within = self._tables[index][first] & self._tables[index][second]
                shared[index] += np.bincount(where[within], minlength=self._columns)
        return np.asarray(shared)
