"""Rectum, colon and small bowel: bent tubes with a wall and gas, stool, fluid or contrast medium inside."""

from dataclasses import dataclass

import numpy as np

from appliance.phantoms.anatomy.canvas import Canvas
from appliance.phantoms.anatomy.patient import Patient
from appliance.phantoms.shapes import FIRST_CORNER_MM, SHAPE, VOXEL_MM, Y_MM, Z_MM, Mask, Tube, Y, Z, smooth_path, tube
from appliance.phantoms.tissues import Structure, Tissue

_CONTENTS = (Tissue.GAS, Tissue.STOOL, Tissue.GUT_FLUID, Tissue.GUT_CONTRAST, None)
"""What may fill a stretch of gut; None means collapsed, wall only."""

_SOLID = (
    Tissue.LIVER,
    Tissue.SPLEEN,
    Tissue.KIDNEY,
    Tissue.UTERUS,
    Tissue.PROSTATE,
    Tissue.SEMINAL_VESICLE,
    Tissue.VAGINA,
    Tissue.ARTERY,
    Tissue.VEIN,
    Tissue.MUSCLE,
    Tissue.STOMACH,
)


@dataclass(frozen=True, slots=True)
class Lumen:
    """How a gut is filled: chance of gas, stool, fluid, contrast, nothing; wall thickness in mm; its wall tissue."""

    chances: tuple[float, float, float, float, float]
    wall_mm: float = 3.0
    wall: Tissue = Tissue.GUT_WALL


def fill_tube(canvas: Canvas, swept: Tube, within: Mask, lumen: Lumen, rng: np.random.Generator) -> Mask:
    """Paint wall and contents of a tube in stretches of one to six centimetres; returns its mask in its own window."""
    mask = (swept.depth < 1) & within[swept.window]
    tissue = canvas.tissue[swept.window]
    tissue[mask] = lumen.wall
    inside = mask & (swept.depth < max(0.25, 1 - lumen.wall_mm / swept.radius_mm) ** 2)
    stretch = swept.along // max(6, int(rng.uniform(6, 22)))
    heights = np.broadcast_to(Y[:, swept.window[1], :], mask.shape)
    contents = rng.choice(len(_CONTENTS), p=lumen.chances, size=int(stretch.max()) + 1)
    for index, content in enumerate(_CONTENTS[k] for k in contents):
        here = inside & (stretch == index)
        if content is None or not here.any():
            continue
        tissue[here] = Tissue.GUT_FLUID if content is Tissue.GAS else content
        if content is Tissue.GAS or rng.random() < 0.35:
            share = rng.uniform(0.4, 1.1) if content is Tissue.GAS else rng.uniform(0, 0.35)
            top, bottom = float(heights[here].min()), float(heights[here].max())
            tissue[here & (heights < top + (bottom - top + 1) * share)] = Tissue.GAS
    return mask


@dataclass(frozen=True, slots=True)
class Rectum:
    """The rectum's axis (n, 3) in mm from the anus upwards, its tube, its mask on the whole grid."""

    axis_mm: np.ndarray
    swept: Tube
    mask: Mask


def draw_rectum_shape(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> Rectum:
    """From the anus along the hollow of the sacrum to the rectosigmoid bend; empty, or wide in its middle."""
    n, u = rng.normal, rng.uniform
    heights = np.array([-72.0, -50, -30, -5, 20, 45, 68])
    behind = np.array([44, 36, 40, 50, 57, 55, 44])
    sacrum_y, _ = patient.tilt_sacrum(behind + 25.0, heights)
    behind = behind + 0.4 * np.clip(heights / 20, 0, 1) * (sacrum_y - behind - 25)
    axis = smooth_path(
        [(n(0, 1 if z < -20 else 6), y + n(0, 3), z + n(0, 2)) for y, z in zip(behind, heights, strict=True)]
    )
    wide = u(1, 2.2) if rng.random() < 0.6 else u(0.85, 1.2)
    place = np.linspace(0, 1, len(axis))
    radii = u(10, 15) * np.interp(place, [0, 0.2, 0.35, 0.6, 0.8, 1], [0.9, 0.85, 1.05, wide, wide * 0.95, 1.0])
    radii *= 1 + 0.08 * np.sin(place * 30 + u(0, 6))
    swept = tube(axis, radii, float(radii.mean()))
    mask = np.zeros(SHAPE, np.bool_)
    mask[swept.window] = swept.depth < 1
    return Rectum(axis, swept, mask & canvas.inner)


def draw_rectum(canvas: Canvas, rectum: Rectum, rng: np.random.Generator) -> None:
    """Paint the mesorectal fat around the rectum, then its wall and contents."""
    halo = np.zeros(SHAPE, np.bool_)
    fat_mm = rng.uniform(3, 12)
    halo[rectum.swept.window] = rectum.swept.depth < (1 + fat_mm / rectum.swept.radius_mm) ** 2
    canvas.fill(halo & canvas.inner & (canvas.tissue == Tissue.MUSCLE) & (Z > -40), Tissue.VISCERAL_FAT)
    filling = (
        (0.45, 0.35, 0.05, 0.05, 0.1),
        (0.05, 0.7, 0.05, 0.05, 0.15),
        (0.1, 0.1, 0.05, 0.0, 0.75),
        (0.1, 0.1, 0.1, 0.6, 0.1),
    )[rng.choice(4, p=[0.3, 0.3, 0.32, 0.08])]
    mask = fill_tube(canvas, rectum.swept, rectum.mask, Lumen(filling, 4.0, Tissue.RECTAL_WALL), rng)
    canvas.structure[rectum.swept.window][mask] = Structure.RECTUM


class BowelPainter:
    """Lays one tube of bowel after another where the cavity is still free."""

    def __init__(self, canvas: Canvas, rng: np.random.Generator) -> None:
        self.canvas = canvas
        self.rng = rng
        free_structure = (canvas.structure == Structure.BODY) & canvas.cavity
        self.free: Mask = free_structure & ~np.isin(canvas.tissue, _SOLID)

    def lay(self, points: list[tuple[float, float, float]], radius_mm: float, lumen: Lumen, folds: float = 0.0) -> None:
        """Lay a tube along a spline through the points; `folds` is the depth of its haustra relative to the radius."""
        rng = self.rng
        axis = smooth_path(points)
        along_mm = np.arange(len(axis)) * 3.0
        uneven = np.interp(along_mm, np.linspace(0, along_mm[-1] + 1, 8), rng.normal(0, 1, 8))
        radii = radius_mm * (1 + folds * np.abs(np.sin(along_mm / rng.uniform(9, 14))) + 0.12 * uneven)
        swept = tube(axis, np.clip(radii, 5, 45), radius_mm)
        mask = fill_tube(self.canvas, swept, self.free, lumen, rng)
        self.canvas.structure[swept.window][mask] = Structure.BOWEL
        self.free[swept.window] &= ~mask

    def random_point(self, ceiling_mm: float) -> tuple[float, float, float] | None:
        """A free point of the cavity below a height, or None when there is none left."""
        z, y, x = np.nonzero(self.free & (Z > 15) & (ceiling_mm > Z))
        if len(z) < 50:
            return None
        k = self.rng.integers(len(z))
        px, py, pz = FIRST_CORNER_MM + VOXEL_MM * (np.array([x[k], y[k], z[k]]) + 0.5)
        return float(px), float(py), float(pz)


def draw_bowel(canvas: Canvas, patient: Patient, rectum: Rectum, rng: np.random.Generator) -> None:
    """Colon from the rectum backwards to the caecum, then loops of small bowel in what room is left."""
    painter = BowelPainter(canvas, rng)
    _draw_colon(painter, canvas, patient, rectum, rng)
    _draw_small_bowel(painter, patient.liver_floor_mm, rng)


def _draw_colon(
    painter: BowelPainter, canvas: Canvas, patient: Patient, rectum: Rectum, rng: np.random.Generator
) -> None:
    u, n, up = rng.uniform, rng.normal, patient.liver_floor_mm
    usual = rng.random() < 0.88
    lumen = Lumen((0.3, 0.4, 0.2, 0.05, 0.05) if usual else (0.15, 0.1, 0.15, 0.5, 0.1))
    width, r = _Flanks(canvas), u(14, 28)
    left, right, top = width.left_mm, width.right_mm, up + u(20, 60)
    end = (float(rectum.axis_mm[-1][0]), float(rectum.axis_mm[-1][1]), float(rectum.axis_mm[-1][2]))
    loops = [(n(10, 22), float(np.clip(n(5, 25), -40, 40)), u(45, 95)) for _ in range(rng.integers(1, 4))]
    painter.lay(
        [end, *loops, (72 + n(0, 6), -15 + n(0, 8), 75), (left(105) - r, 5 + n(0, 10), 105)], u(9, 16), lumen, 0.1
    )
    descending = [(left(105) - r, 5.0, 105.0), (left(150) - r, 20 + n(0, 8), 150.0), (left(top) - r, 25.0, top)]
    painter.lay([*descending, (left(top) - r, 5.0, top + 20)], u(10, 20), lumen, 0.2)
    ascending = [(right(75) * 0.85 + r, -20 + n(0, 10), u(55, 85)), (right(120) + r, n(0, 12), 120.0)]
    painter.lay(
        [*ascending, (right(170) + r, 10 + n(0, 8), 170.0), (right(up) + r, 0.0, max(up, 190))],
        r * u(0.9, 1.3),
        lumen,
        0.2,
    )
    sag = u(60, up)
    transverse = [(right(up) + r, -20.0, up), (-50.0, width.front_mm((sag + up) / 2) * 0.9 + r, (sag + up) / 2)]
    transverse += [(n(0, 25), width.front_mm(sag) + r, sag), (55.0, width.front_mm(sag) * 0.9 + r, (sag + top) / 2)]
    painter.lay([*transverse, (left(top) - r, -15.0, top)], r, lumen, 0.25)


def _draw_small_bowel(painter: BowelPainter, up: float, rng: np.random.Generator) -> None:
    u = rng.uniform
    usual = rng.random() < 0.82
    lumen = Lumen((0.08, 0.0, 0.67, 0.15, 0.1) if usual else (0.03, 0.0, 0.25, 0.7, 0.02), 2.5)
    for _ in range(rng.integers(12, 36)):
        start = painter.random_point(u(110, up + 20))
        if start is None:
            return
        points, direction = [start], rng.normal(0, 1, 3)
        for _ in range(rng.integers(3, 8)):
            direction = 0.4 * direction + rng.normal(0, 1, 3)
            step = np.array(points[-1]) + direction / np.linalg.norm(direction) * u(22, 45)
            if _inside(painter.canvas.cavity, step):
                points.append((float(step[0]), float(step[1]), float(step[2])))
            else:
                direction = -direction
        if len(points) >= 3:
            painter.lay(points, u(8, 16), lumen, 0.05)


def _inside(mask: Mask, point_mm: np.ndarray) -> bool:
    x, y, z = np.floor((point_mm - FIRST_CORNER_MM) / VOXEL_MM).astype(int)
    return bool(0 <= z < SHAPE[0] and 0 <= y < SHAPE[1] and 0 <= x < SHAPE[2] and mask[z, y, x])


class _Flanks:
    """Where the cavity ends, at a height: to the left, to the right and in front, in mm."""

    def __init__(self, canvas: Canvas) -> None:
        middle = slice(SHAPE[2] // 2 - 8, SHAPE[2] // 2 + 8)
        columns, rows = np.any(canvas.cavity, axis=1), np.any(canvas.cavity[:, :, middle], axis=2)
        self._left = FIRST_CORNER_MM[0] + VOXEL_MM * (SHAPE[2] - columns[:, ::-1].argmax(1))
        self._right = FIRST_CORNER_MM[0] + VOXEL_MM * columns.argmax(1)
        self._front = Y_MM[rows.argmax(1)]

    def left_mm(self, z_mm: float) -> float:
        """Where the cavity ends to the left at a height."""
        return float(np.interp(z_mm, Z_MM, self._left))

    def right_mm(self, z_mm: float) -> float:
        """Where the cavity ends to the right at a height."""
        return float(np.interp(z_mm, Z_MM, self._right))

    def front_mm(self, z_mm: float) -> float:
        """Where the cavity ends to the front at a height."""
        return float(np.interp(z_mm, Z_MM, self._front))
