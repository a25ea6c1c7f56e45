"""All folds of a model, warm, asked tile by tile; what they answer becomes labels while it comes in.

Tile-outer and fold-inner: one accumulator for all folds, whatever their number. Rows of tiles roll over the scan, and
what is behind them is decided on the CT's own grid and forgotten (slab.py, labelling.py).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from appliance.clock import Effort, measured
from appliance.dicom.ct_volume import CtVolume
from appliance.errors import ModelRefused, Reason
from appliance.segmentation.arrays import Arrays, to_host
from appliance.segmentation.backends.network import Array, Network
from appliance.segmentation.fold_agreement import AgreementTally, FoldAgreement
from appliance.segmentation.labelling import Labelling
from appliance.segmentation.model_package import ModelPackage
from appliance.segmentation.preprocess import WorkingVolume, to_working_grid
from appliance.segmentation.roi_rules import ClassLabels
from appliance.segmentation.slab import Slab
from appliance.segmentation.sliding_window import Tile, TileRow, cover
from appliance.segmentation.votes import Votes, winners
from appliance.segmentation.working_grid import WorkingGrid

OnTile: TypeAlias = Callable[[int, int, int], None]
"""Called with (fold, network runs done, network runs in all) after each run; it may raise to stop."""

AIR_LOGIT = 20.0
"""How surely a tile of air alone is background, where logits are averaged."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """What an ensemble says about a scan.

    Attributes:
        labels: the decided class of each CT voxel, and how surely.
        grid: the working grid that the networks saw.
        agreement: how far the folds agree.
        network_effort: what each fold's network runs cost, without all that is around them.
    """

    labels: ClassLabels
    grid: WorkingGrid
    agreement: FoldAgreement
    network_effort: tuple[Effort, ...]


class Ensemble:
    """The networks of one model package, loaded once and used for many scans.

    Args:
        package: a checked package.
        networks: its folds, loaded, in the manifest's order.
        arrays: where the large arrays live.
        batch: how many tiles a network is asked about at once.

    Raises:
        ModelRefused: MODEL_INVALID if a network is not on the manifest's tile and classes.
    """

    def __init__(self, package: ModelPackage, networks: Sequence[Network], arrays: Arrays, batch: int = 1) -> None:
        self.package = package
        self.arrays = arrays
        self.networks = tuple(networks)
        self.batch = batch
        manifest = package.manifest
        expected = (len(manifest.input.channels), *manifest.input.tile), (len(manifest.classes), *manifest.input.tile)
        for fold, network in zip(manifest.folds, self.networks, strict=True):
            found = network.input_shape[1:], network.output_shape[1:]
            if found != expected:
                raise ModelRefused(
                    Reason.MODEL_INVALID,
                    f"{fold.file} maps {found[0]} to {found[1]}, the manifest needs {expected[0]} to {expected[1]}; "
                    "publish the package again",
                )

    def label(self, volume: CtVolume, on_tile: OnTile) -> Labelled:
        """Ask every fold about every tile that holds tissue, and decide the class of every CT voxel.

        Raises:
            SeriesRefused: ORIENTATION_UNSUPPORTED.
            ModelRefused: MODEL_INVALID if a network answers with anything but numbers.
        """
        working = to_working_grid(volume, self.package.manifest.input)
        return Run(self, working, on_tile).result()


class Run:
    """One scan on its way through an ensemble."""

    def __init__(self, ensemble: Ensemble, working: WorkingVolume, on_tile: OnTile) -> None:
        manifest = ensemble.package.manifest
        self._ensemble, self._working, self._on_tile = ensemble, working, on_tile
        self._manifest, self._arrays = manifest, ensemble.arrays
        self._votes = Votes(manifest.ensemble, ensemble.arrays)
        self._rows = cover(
            working.grid,
            manifest.input.tile,
            manifest.input.overlap,
            peak_above_middle=manifest.input.resampling == "cubic",
        )
        self._occupied = {
            id(tile): not (manifest.input.skip_air and working.is_air(tile.box))
            for row in self._rows
            for tile in row.tiles
        }
        folds = len(manifest.folds)
        self._runs, self._done = sum(self._occupied.values()) * folds, 0
        self._efforts = tuple(Effort() for _ in range(folds))
        grid = working.grid
        regions = [frozenset(manifest.numbers(roi.classes)) for roi in manifest.rois]
        columns = grid.shape[grid.left_right_axis]
        self._tally = AgreementTally(regions, len(manifest.classes), folds, columns)
        planes = max(tile.spans[0].inside.stop - row.first for row in self._rows for tile in row.tiles[:1])
        shape = (len(manifest.classes), planes, *grid.shape[1:])
        self._slab = Slab(ensemble.arrays, (shape[0], shape[1], shape[2], shape[3]), manifest.accumulate)

    def result(self) -> Labelled:
        """Go through the scan, and decide what is finished while it comes."""
        grid = self._working.grid
        labelling = Labelling(grid, self._manifest, self._arrays)
        for first, planes in self.finished_planes():
            self._count(planes)
            labelling.take(first, planes)
        agreement = self._tally.result(grid.centres_mm[grid.left_right_axis])
        return Labelled(labelling.result(), grid, agreement, self._efforts)

    def finished_planes(self) -> Iterator[tuple[int, Array]]:
        """Go through the scan, row by row of tiles.

        Yields:
            the first plane of the grid that became finished, and these planes' votes (classes, planes, rows, columns),
            which are forgotten afterwards.
        """
        for row in self._rows:
            for tile in row.tiles:
                if not self._occupied[id(tile)]:
                    self._add_air(tile)
            for batch in self._batches(row):
                self._ask(batch)
            yield self._slab.first, self._slab.finished(row.finished)
            self._slab.let_go(row.finished)

    def _batches(self, row: TileRow) -> Iterator[list[Tile]]:
        tiles = [tile for tile in row.tiles if self._occupied[id(tile)]]
        for first in range(0, len(tiles), self._ensemble.batch):
            yield tiles[first : first + self._ensemble.batch]

    def _add_air(self, tile: Tile) -> None:
        air = AIR_LOGIT if self._manifest.ensemble == "mean_logits" else 1.0
        over_z, over_y, over_x = self._weights(tile)
        self._slab.of(tile.box)[0] += air * over_z[:, None, None] * (over_y[:, None] * over_x)

    def _ask(self, tiles: Sequence[Tile]) -> None:
        """Ask the folds about some tiles; where the first two agree well enough the others are spared."""
        pieces = self._arrays.array(np.stack([self._working.channels(tile) for tile in tiles]))
        totals: list[Array | None] = [None] * len(tiles)
        decided: list[list[Array]] = [[] for _ in tiles]
        folds = len(self._ensemble.networks)
        open_tiles = list(range(len(tiles)))
        for fold in range(folds):
            if fold == 2:
                open_tiles = self._unsettled(open_tiles, decided, folds - fold)
                if not open_tiles:
                    break
            asked = pieces if len(open_tiles) == len(tiles) else pieces[np.asarray(open_tiles)]
            logits = self._logits(fold, asked)
            for index, answer in zip(open_tiles, logits, strict=True):
                inside = self._working.grid.to_series(answer, self._arrays.xp)[:, *tiles[index].inset]
                labels = self._votes.turn(inside, decide=folds > 1)
                if labels is not None:
                    decided[index].append(labels)
                before = totals[index]
                if before is None:
                    totals[index] = inside
                else:
                    self._votes.add(before, inside)
                self._done += 1
                self._on_tile(fold, self._done, self._runs)
        for tile, total, labels in zip(tiles, totals, decided, strict=True):
            self._settle(tile, total, labels)

    def _unsettled(self, tiles: list[int], decided: Sequence[Sequence[Array]], folds_left: int) -> list[int]:
        """The tiles on which the first two folds do not agree as far as the manifest's early exit wants."""
        share = self._manifest.early_exit
        if share is None:
            return tiles
        unsettled = []
        for index in tiles:
            first, second = (to_host(labels) for labels in decided[index])
            found = np.count_nonzero(first | second)
            differ = np.count_nonzero(first != second)
            if differ > (1 - share) * found:
                unsettled.append(index)
        self._runs -= folds_left * (len(tiles) - len(unsettled))
        return unsettled

    def _settle(self, tile: Tile, total: Array, labels: Sequence[Array]) -> None:
        """Add what the folds said about a tile to the slab, and count how far they agree."""
        asked = max(1, len(labels))
        over_z, over_y, over_x = self._weights(tile)
        self._votes.weigh(total, (over_z / asked, over_y, over_x), self._slab.of(tile.box))
        if len(labels) > 1:
            axis = self._working.grid.left_right_axis
            owned = [np.moveaxis(to_host(one)[tile.owned], axis, -1) for one in labels]
            self._tally.folds_decided(owned, tile.spans[axis].owned.start)

    def _weights(self, tile: Tile) -> tuple[Array, Array, Array]:
        z, y, x = (self._arrays.array(span.weights.copy()) for span in tile.spans)
        return z, y, x

    def _logits(self, fold: int, pieces: Array) -> Array:
        """One fold's logits for some tiles (B, classes, z, y, x), averaged over the manifest's mirrors."""
        xp = self._arrays.xp
        axes = [2 + "zyx".index(axis) for axis in self._manifest.input.mirror]
        turns = [tuple(axis for bit, axis in enumerate(axes) if mask >> bit & 1) for mask in range(2 ** len(axes))]
        with measured(self._efforts[fold]):
            logits = self._ensemble.networks[fold].run(pieces)
            for turn in turns[1:]:
                mirrored = xp.asarray(xp.flip(pieces, axis=turn), copy=True)
                logits += xp.flip(self._ensemble.networks[fold].run(mirrored), axis=turn)
            if len(turns) > 1:
                logits /= len(turns)
        if not math.isfinite(float(xp.sum(logits))):
            raise ModelRefused(
                Reason.MODEL_INVALID,
                f"{self._manifest.folds[fold].file} answered with values that are not numbers; "
                "publish the package again",
            )
        return logits

    def _count(self, planes: Array) -> None:
        """Count what the ensemble decided on finished planes, and how sure it was of it."""
        xp, axis = self._arrays.xp, self._working.grid.left_right_axis
        for chunk in self._votes.chunks(planes):
            votes = xp.astype(planes[:, chunk], xp.float32)
            labels = to_host(winners(votes, self._arrays))
            found = labels > 0
            if not found.any():
                continue
            likely = votes[:, self._arrays.array(found)]
            if self._manifest.ensemble == "mean_logits":
                likely = xp.exp(likely - xp.max(likely, axis=0))
                likely /= xp.sum(likely, axis=0)
            entropy = np.zeros(labels.shape, np.float32)
            entropy[found] = to_host(-xp.sum(likely * xp.log(xp.clip(likely, 1e-12, 1.0)), axis=0))
            self._tally.ensemble_decided(np.moveaxis(labels, axis, -1), np.moveaxis(entropy, axis, -1), 0)
