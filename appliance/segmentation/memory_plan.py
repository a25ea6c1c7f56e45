"""How much memory a case will need, before it starts: what fits is planned, what cannot fit is refused.

Everything that grows with the scan, the classes or the tile is counted; what a network itself needs was measured when
the engine was examined, or is estimated. The plan gives up speed, step by step, and never the tile: a smaller tile
would change the masks.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from appliance.dicom.ct_volume import CtVolume
from appliance.errors import Reason, SeriesRefused
from appliance.segmentation.manifest import Manifest
from appliance.segmentation.preprocess import BODY_HU, CROP_MARGIN_MM

EXTRA_PLANES = 8
"""What a row of tiles keeps beside its own planes, on the way back to the CT's slices."""

LOOK_EVERY_MM = 8.0
"""How closely the scan is looked at to find about where the body is."""

CT_SLICES_AT_ONCE = 16
"""Slices of the CT that are decided together, each with a few planes of float32."""

RESERVE = 1.1
RESERVE_BYTES = 100_000_000
"""What is not counted: small arrays, the allocator's own waste, other threads."""

ESTIMATED_FEATURES = 160
"""Planes of a tile's size that a network is taken to hold at its peak where nothing was measured."""

ESTIMATED_WEIGHTS = 2
"""Copies of a fold's weights: as they were read, and as the engine laid them out."""

MOST_TILE_VOXELS_AT_ONCE = 1 << 22
"""A GPU gains nothing from batches beyond this."""


@dataclass(frozen=True, slots=True)
class Scan:
    """What is known of a case before it starts.

    Attributes:
        shape: voxels of the CT (z, y, x).
        spacing_mm: of the CT (z, y, x).
        box: about how many voxels of the working grid (z, y, x) the body's box has; None takes the whole scan.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    box: tuple[int, int, int] | None = None

    @classmethod
    def of(cls, volume: CtVolume, manifest: Manifest) -> Self:
        """What a loaded CT will ask for; with a quick and generous look at where the body is, if the model crops."""
        geometry = volume.geometry
        z, y, x = volume.hu.shape
        thickness_mm = float(geometry.slice_thickness_mm.sum()) / z
        whole = cls((z, y, x), (thickness_mm, *geometry.pixel_spacing_mm))
        if manifest.input.crop == "whole":
            return whole
        steps = [max(1, int(LOOK_EVERY_MM / mm)) for mm in whole.spacing_mm]
        seen = volume.hu[:: steps[0], :: steps[1], :: steps[2]] > BODY_HU
        reach_mm = [
            _reach(seen, axis) * step * mm for axis, (step, mm) in enumerate(zip(steps, whole.spacing_mm, strict=True))
        ]
        limits = whole.working_shape(manifest)
        z, y, x = (
            min(limit, math.ceil((mm + 2 * (CROP_MARGIN_MM + LOOK_EVERY_MM)) / spacing_mm)) if mm else limit
            for mm, spacing_mm, limit in zip(reach_mm, manifest.input.spacing_mm, limits, strict=True)
        )
        return replace(whole, box=(z, y, x))

    @property
    def voxels(self) -> int:
        """How many the CT has."""
        return math.prod(self.shape)

    @property
    def held_bytes(self) -> int:
        """What the loaded CT takes already."""
        return self.voxels * 2  # int16

    def working_shape(self, manifest: Manifest) -> tuple[int, int, int]:
        """Voxels of the working grid over the whole scan, (z, y, x)."""
        sides = zip(self.shape, self.spacing_mm, manifest.input.spacing_mm, strict=True)
        z, y, x = (math.ceil(count * ct_mm / mm) for count, ct_mm, mm in sides)
        return z, y, x


@dataclass(frozen=True, slots=True)
class EngineNeeds:
    """What an engine takes of the memory.

    Attributes:
        words: which one.
        on_host: whether it runs on the CPU.
        fold_bytes: size of one fold's file.
        host_bytes: measured for one fold and one tile; None to estimate.
        device_bytes: likewise, of the GPU's.
        loaded: whether the folds' weights are in memory already.
    """

    words: str
    on_host: bool
    fold_bytes: int
    host_bytes: int | None = None
    device_bytes: int | None = None
    loaded: bool = False

    def held_bytes(self, folds: int) -> int:
        """What the weights take already."""
        return folds * ESTIMATED_WEIGHTS * self.fold_bytes if self.loaded else 0


@dataclass(frozen=True, slots=True)
class Free:
    """Free memory in bytes; no GPU has no memory."""

    host_bytes: int
    device_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """How a case will be run.

    Attributes:
        engine: position of the engine among those that were asked about.
        batch: how many tiles at once.
        accumulators: where the classes are added up.
        host_bytes: what will be needed of the host's memory, the CT itself included.
        device_bytes: and of the GPU's.
        words: all of it for people.
    """

    engine: int
    batch: int
    accumulators: Literal["device", "host"]
    host_bytes: int
    device_bytes: int
    words: str


def plan_memory(manifest: Manifest, scan: Scan, engines: Sequence[EngineNeeds], free: Free) -> Plan:
    """Find the fastest way that fits.

    Args:
        manifest: the model's.
        scan: the case, loaded.
        engines: which may be used, the best first.
        free: what is free now.

    Raises:
        SeriesRefused: MEMORY_TOO_SMALL if even one tile at a time on the last engine does not fit.
    """
    ways = list(chain.from_iterable(_ways(manifest, scan, number, needs) for number, needs in enumerate(engines)))
    folds = len(manifest.folds)
    available = Free(
        free.host_bytes + scan.held_bytes + sum(one.held_bytes(folds) for one in engines if one.on_host),
        free.device_bytes + sum(one.held_bytes(folds) for one in engines if not one.on_host),
    )
    for way in ways:
        if way.host_bytes <= available.host_bytes and way.device_bytes <= available.device_bytes:
            return Plan(
                way.engine, way.batch, way.accumulators, way.host_bytes, way.device_bytes, _in_words(way, available)
            )
    least = min(ways, key=lambda way: (way.device_bytes, way.host_bytes))
    raise SeriesRefused(
        Reason.MEMORY_TOO_SMALL,
        f"the case needs {in_gb(least.host_bytes)} of memory and {in_gb(available.host_bytes)} are free; give the "
        "worker more memory, or close what else runs on the box, and send the series again",
    )


def _ways(manifest: Manifest, scan: Scan, number: int, needs: EngineNeeds) -> Iterator[Plan]:
    """All ways to run on one engine, the fastest first."""
    if needs.on_host:
        yield _way(manifest, scan, (number, needs), 1, "host")
        return
    batch = max(1, MOST_TILE_VOXELS_AT_ONCE // math.prod(manifest.input.tile))
    batches = [1 << power for power in range(min(3, batch.bit_length() - 1), -1, -1)]
    for place in ("device", "host"):
        for tiles in batches:
            yield _way(manifest, scan, (number, needs), tiles, "device" if place == "device" else "host")


def _way(
    manifest: Manifest,
    scan: Scan,
    engine: tuple[int, EngineNeeds],
    batch: int,
    accumulators: Literal["device", "host"],
) -> Plan:
    number, needs = engine
    networks_host, networks_device = _networks(manifest, needs, batch)
    adding_up = _accumulators(manifest, scan) + _tiles(manifest, batch) + _returning(scan)
    asking = _cropped(manifest, scan) + (adding_up if accumulators == "host" else _tiles(manifest, batch))
    host = _volumes(scan) + networks_host + max(_resampling(manifest, scan), asking)
    device = networks_device + (adding_up if accumulators == "device" else 0)
    return Plan(number, batch, accumulators, _with_reserve(host), _with_reserve(device), needs.words)


def _volumes(scan: Scan) -> int:
    """The CT, the class of each of its voxels and how sure it is, and masks in the making."""
    return scan.held_bytes + scan.voxels * (2 + 2)


def _resampling(manifest: Manifest, scan: Scan) -> int:
    """The scan resampled within its slices, then along z too, and the parts that may be body."""
    z, y, x = scan.working_shape(manifest)
    values = len(manifest.input.channels) if manifest.input.resampling == "cubic" else 1
    return 4 * (scan.shape[0] * y * x + z * y * x * (values + 2))


def _cropped(manifest: Manifest, scan: Scan) -> int:
    values = len(manifest.input.channels) if manifest.input.resampling == "cubic" else 1
    return 4 * values * math.prod(scan.box or scan.working_shape(manifest))


def _accumulators(manifest: Manifest, scan: Scan) -> int:
    z, y, x = scan.box or scan.working_shape(manifest)
    tile_z, tile_y, tile_x = manifest.input.tile
    planes = min(max(z, tile_z), tile_z + EXTRA_PLANES)
    item = 2 if manifest.accumulate == "float16" else 4
    return len(manifest.classes) * planes * max(y, tile_y) * max(x, tile_x) * item


def _tiles(manifest: Manifest, batch: int) -> int:
    """Channels of a batch; its logits of one fold, their sum over the folds, and their softmax."""
    return 4 * batch * math.prod(manifest.input.tile) * (len(manifest.input.channels) + 3 * len(manifest.classes))


def _returning(scan: Scan) -> int:
    return 4 * 4 * CT_SLICES_AT_ONCE * math.prod(scan.shape[1:])


def _networks(manifest: Manifest, needs: EngineNeeds, batch: int) -> tuple[int, int]:
    """What all folds and one run of them take, on the host and on the GPU."""
    folds = len(manifest.folds)
    weights = ESTIMATED_WEIGHTS * needs.fold_bytes
    work = 4 * ESTIMATED_FEATURES * math.prod(manifest.input.tile)
    if needs.on_host:
        one = weights + work if needs.host_bytes is None else needs.host_bytes
        return one + (folds - 1) * weights, 0
    one = weights + work if needs.device_bytes is None else needs.device_bytes
    return folds * weights + (needs.host_bytes or 0), one + (batch - 1) * max(0, one - weights) + (folds - 1) * weights


def _reach(seen: NDArray[np.bool_], axis: int) -> int:
    """How many looks along an axis there are from the first that saw something to the last."""
    places = np.unique(np.nonzero(seen)[axis])
    return int(places[-1] - places[0]) + 1 if places.size else 0


def _with_reserve(count: int) -> int:
    return int(count * RESERVE) + RESERVE_BYTES if count else 0


def _in_words(way: Plan, available: Free) -> str:
    on_host = f"{way.words}: needs {in_gb(way.host_bytes)} of {in_gb(available.host_bytes)} free"
    if not way.device_bytes:
        return on_host
    tiles = "1 tile" if way.batch == 1 else f"{way.batch} tiles"
    on_device = f"and {in_gb(way.device_bytes)} of {in_gb(available.device_bytes)} on the GPU"
    added_up = "" if way.accumulators == "device" else ", added up in the host's memory"
    return f"{on_host} {on_device}, {tiles} at once{added_up}"


def in_gb(count: int) -> str:
    """Bytes for people."""
    return f"{count / 1e9:.1f} GB"
