"""Solid shapes on the anatomy grid. Points are (x, y, z) in mm: x to the left, y to the back, z to the head."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.interpolate import CubicSpline

Floats: TypeAlias = npt.NDArray[np.float32]
Mask: TypeAlias = npt.NDArray[np.bool_]
Points: TypeAlias = npt.NDArray[np.float64]
Point: TypeAlias = Sequence[float] | Points

VOXEL_MM = 3.0
"""Edge of one cubic voxel of the anatomy grid; organs of a few millimetres (gut wall) are still one voxel thick."""
FIRST_CORNER_MM = np.array([-222.0, -168.0, -150.0])
"""Corner (x, y, z) of the grid. The patient's origin is the midpoint between the two hip joints."""
SHAPE = (160, 111, 148)
"""Voxels of the grid along (z, y, x): 480 mm, 333 mm and 444 mm."""


def _centres(axis: int, count: int) -> Floats:
    return np.asarray(FIRST_CORNER_MM[axis] + VOXEL_MM * (np.arange(count) + 0.5), dtype=np.float32)


X_MM, Y_MM, Z_MM = _centres(0, SHAPE[2]), _centres(1, SHAPE[1]), _centres(2, SHAPE[0])
X, Y, Z = X_MM[None, None, :], Y_MM[None, :, None], Z_MM[:, None, None]
"""Voxel centres in mm, shaped to broadcast over (z, y, x)."""


class Region(NamedTuple):
    """A mask (z, y, x) that covers only the part `window` of the grid."""

    window: tuple[slice, slice, slice]
    mask: Mask

    def paint(self, target: npt.NDArray[np.uint8], value: int, within: Mask | None = None) -> None:
        """Write `value` into the grid-sized `target` inside the region, and only where `within` is true."""
        mask = self.mask if within is None else self.mask & within[self.window]
        target[self.window][mask] = value

    def add_to(self, target: Mask) -> None:
        """Set the region's voxels in a grid-sized mask."""
        target[self.window] |= self.mask


@dataclass(frozen=True, slots=True)
class _Box:
    window: tuple[slice, slice, slice]
    x: Floats
    y: Floats
    z: Floats


def _box(low: Points, high: Points) -> _Box:
    first = np.floor((low - FIRST_CORNER_MM) / VOXEL_MM).astype(int)
    last = np.ceil((high - FIRST_CORNER_MM) / VOXEL_MM).astype(int)
    limits = (SHAPE[2], SHAPE[1], SHAPE[0])
    sx, sy, sz = (
        slice(min(max(0, a), n), max(min(max(0, a), n), min(b, n))) for a, b, n in zip(first, last, limits, strict=True)
    )
    return _Box((sz, sy, sx), X[:, :, sx], Y[:, sy, :], Z[sz, :, :])


def rotation(rng: np.random.Generator, sd_deg: float) -> Floats:
    """Draw a 3x3 rotation: three angles about x, y and z, normally distributed."""
    angles = np.deg2rad(rng.normal(0, sd_deg, 3))
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(about_x @ about_y @ about_z, dtype=np.float32)


def ellipsoid(centre: Point, radii: Point, turned: Floats | None = None, power: float = 2.0) -> Region:
    """Superellipsoid with three radii in mm; `power` above 2 makes it boxy."""
    c, r = np.asarray(centre, float), np.asarray(radii, float)
    reach = float(r.max()) * (1.0 if turned is None else 1.3) + VOXEL_MM
    box = _box(c - reach, c + reach)
    x, y, z = box.x - np.float32(c[0]), box.y - np.float32(c[1]), box.z - np.float32(c[2])
    if turned is not None:
        x, y, z = (row[0] * x + row[1] * y + row[2] * z for row in turned)
    inside = sum(
        np.abs(axis / np.float32(radius)) ** np.float32(power) for axis, radius in zip((x, y, z), r, strict=True)
    )
    return Region(box.window, inside < 1)


def capsule(start: Point, end: Point, start_radius_mm: float, end_radius_mm: float | None = None) -> Region:
    """Round rod from `start` to `end` whose radius changes evenly."""
    a, b = np.asarray(start, float), np.asarray(end, float)
    ra, rb = start_radius_mm, start_radius_mm if end_radius_mm is None else end_radius_mm
    reach = max(ra, rb) + VOXEL_MM
    box = _box(np.minimum(a, b) - reach, np.maximum(a, b) + reach)
    dx, dy, dz = (float(d) for d in b - a)
    px, py, pz = box.x - np.float32(a[0]), box.y - np.float32(a[1]), box.z - np.float32(a[2])
    t = np.clip((px * dx + py * dy + pz * dz) / np.float32(dx * dx + dy * dy + dz * dz + 1e-6), 0, 1)
    distance2 = (px - t * dx) ** 2 + (py - t * dy) ** 2 + (pz - t * dz) ** 2
    return Region(box.window, distance2 < (ra + (rb - ra) * t) ** 2)


def rods(points: Sequence[Point], radii_mm: Sequence[float]) -> list[Region]:
    """Chain of capsules through the points."""
    return [capsule(points[k], points[k + 1], radii_mm[k], radii_mm[k + 1]) for k in range(len(points) - 1)]


def union(regions: Iterable[Region]) -> Mask:
    """One grid-sized mask of all regions."""
    mask = np.zeros(SHAPE, dtype=np.bool_)
    for region in regions:
        region.add_to(mask)
    return mask


def smooth_path(points: Sequence[Point], step_mm: float = 3.0) -> Points:
    """Spline through the points, sampled about every `step_mm`: (n, 3)."""
    knots = np.asarray(points, float)
    length = np.r_[0, np.cumsum(np.linalg.norm(np.diff(knots, axis=0), axis=1) + 1e-3)]
    return np.asarray(CubicSpline(length, knots)(np.linspace(0, length[-1], max(3, int(length[-1] / step_mm)))))


class Tube(NamedTuple):
    """A bent tube in `window` of the grid.

    Attributes:
        window: the part of the grid that the maps cover.
        depth: (distance to the axis / radius there)^2, (z, y, x); below 1 inside.
        along: number of the nearest axis point, (z, y, x).
        radius_mm: the radius that the tube would have without its bulges.
    """

    window: tuple[slice, slice, slice]
    depth: Floats
    along: npt.NDArray[np.int32]
    radius_mm: float


def tube(axis: Points, radii_mm: npt.NDArray[np.float64], plain_radius_mm: float) -> Tube:
    """Sweep a ball of changing radius along the axis points (n, 3)."""
    reach = float(radii_mm.max()) * 1.1
    whole = _box(axis.min(0) - reach, axis.max(0) + reach)
    offsets = [s.start for s in whole.window]
    shape = tuple(s.stop - s.start for s in whole.window)
    depth, along = np.full(shape, 1e9, np.float32), np.zeros(shape, np.int32)
    for index, (point, radius) in enumerate(zip(axis, radii_mm, strict=True)):
        box = _box(point - radius * 1.05, point + radius * 1.05)
        local = tuple(slice(s.start - o, s.stop - o) for s, o in zip(box.window, offsets, strict=True))
        d2 = (
            (box.x - np.float32(point[0])) ** 2
            + (box.y - np.float32(point[1])) ** 2
            + (box.z - np.float32(point[2])) ** 2
        )
        d2 = d2 / np.float32(radius * radius)
        nearer = d2 < depth[local]
        depth[local][nearer] = d2[nearer]
        along[local][nearer] = index
    return Tube(whole.window, depth, along, plain_radius_mm)
