"""Sacrum with coccyx, lumbar vertebrae with discs and canal, and the lower ribs."""

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from appliance.phantoms.anatomy.bones import draw_bone, wobbled
from appliance.phantoms.anatomy.canvas import Canvas
from appliance.phantoms.anatomy.patient import Patient
from appliance.phantoms.shapes import (
    SHAPE,
    Y_MM,
    Z_MM,
    Mask,
    Region,
    X,
    Y,
    Z,
    capsule,
    ellipsoid,
    smooth_path,
    union,
)
from appliance.phantoms.tissues import Structure, Tissue

_SACRUM_Y_MM = np.array([26, 46, 70, 86, 88, 74, 64], float)
_SACRUM_Z_MM = np.array([104, 88, 64, 38, 12, -8, -18], float)
_SACRUM_HALF_WIDTH_MM = np.array([56, 55, 47, 36, 26, 12, 5], float)
_SACRUM_HALF_DEPTH_MM = np.array([19, 21, 17, 12, 9, 6, 4], float)


def draw_spine(canvas: Canvas, patient: Patient, hips: Mask, rng: np.random.Generator) -> None:
    """Paint sacrum and vertebrae; `hips` stay clear of the sacrum except where the joint is worn."""
    curve_y, curve_z = _draw_sacral_curve(patient, rng)
    sacrum, sacral_canal = _sacrum(curve_y, curve_z, patient, rng)
    sacrum &= ~(ndimage.binary_dilation(hips) if rng.random() < 0.75 else hips)
    vertebrae, discs, canal = _vertebrae(float(curve_z[0]) + rng.uniform(2, 6), patient, rng)
    vertebrae &= ~sacrum & ~hips
    canvas.fill(discs & ~vertebrae & canvas.body & ~sacrum & ~hips, Tissue.DISC)
    canvas.fill((sacral_canal | canal) & canvas.body, Tissue.SPINAL_CANAL)
    draw_bone(canvas, sacrum, (Tissue.SACRUM_CORTEX, Tissue.SACRUM_MARROW), Structure.SACRUM)
    draw_bone(canvas, vertebrae, (Tissue.SPINE_CORTEX, Tissue.SPINE_MARROW), Structure.VERTEBRA)


def _draw_sacral_curve(patient: Patient, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    y = wobbled(_SACRUM_Y_MM, rng, 2.5) + rng.normal(0, 3)
    z = _SACRUM_Z_MM * patient.scale * rng.uniform(0.93, 1.05) + rng.normal(0, 3)
    return patient.tilt_sacrum(y, z)


def _sacrum(curve_y: np.ndarray, curve_z: np.ndarray, patient: Patient, rng: np.random.Generator) -> tuple[Mask, Mask]:
    """Sacrum and its canal: a plate swept along a curve in the midplane, wide at the top, pierced by foramina."""
    u = rng.uniform
    curve = smooth_path(np.c_[np.zeros(7), curve_y, curve_z], 2.0)[:, 1:]
    place, knots = np.linspace(0, 1, len(curve)), np.linspace(0, 1, 7)
    female = 1.05 if not patient.is_male else 1.0
    half_width = np.interp(place, knots, _SACRUM_HALF_WIDTH_MM * patient.width_scale * u(0.92, 1.08) * female)
    half_depth = np.interp(place, knots, _SACRUM_HALF_DEPTH_MM * u(0.75, 1.1))
    plane = np.stack(np.meshgrid(Y_MM, Z_MM, indexing="xy"), -1)
    _, nearest = cKDTree(curve).query(plane)
    tangent = np.gradient(curve, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], 1)
    offset = plane - curve[nearest]
    behind = (offset * normal[nearest]).sum(-1).astype(np.float32)[:, :, None]
    beside_curve = (np.abs((offset * tangent[nearest]).sum(-1)) < 3)[:, :, None]
    width, depth = half_width[nearest][:, :, None], half_depth[nearest][:, :, None]
    lateral = np.abs(X) / width
    hollow = lateral**2 * depth * u(-0.1, 1.1)
    depth_here = depth * (1 - u(0, 0.45) * np.clip(lateral, 0, 1) ** 2)
    mask = (lateral ** u(2.2, 4) + np.abs((behind - hollow) / depth_here) ** 2.2 < 1) & beside_curve
    mask |= (np.abs(X) < 4) & (behind > 0) & (behind < depth_here + u(4, 12)) & beside_curve & (Z > 15)
    canal = (np.abs(X) < 9) & (np.abs(behind - depth_here * 0.45) < 4.5) & beside_curve & (Z > 20)
    return mask & ~canal & ~_foramina(curve_y, curve_z, rng), canal


def _foramina(curve_y: np.ndarray, curve_z: np.ndarray, rng: np.random.Generator) -> Mask:
    holes: list[Region] = []
    for level in (1.0, 1.9, 2.7, 3.4):
        y, z = (float(np.interp(level, np.arange(7), curve)) for curve in (curve_y, curve_z))
        for side in (-1, 1):
            start, end = (side * rng.uniform(17, 22), y - 28, z - 4), (side * rng.uniform(18, 23), y + 5, z + 2)
            holes.append(capsule(start, end, rng.uniform(3, 5)))
    return union(holes)


def _vertebrae(first_z_mm: float, patient: Patient, rng: np.random.Generator) -> tuple[Mask, Mask, Mask]:
    """Vertebrae from L5 upwards, their discs, and the spinal canal."""
    bones, discs, canals = [], [], []
    top, s = first_z_mm, patient.scale
    for k in range(9):
        height, gap = rng.uniform(25, 29) * s, rng.uniform(7, 12)
        z = top + gap + height / 2
        if z > Z_MM[-1] + 14:
            break
        top = z + height / 2
        y, half_width, half_depth = patient.spine_y_mm(z), rng.uniform(23, 27) * s, rng.uniform(16, 19) * s
        tilt = np.deg2rad(14 - 14 * k if k < 2 else 0)
        turned = np.array([[1, 0, 0], [0, np.cos(tilt), np.sin(tilt)], [0, -np.sin(tilt), np.cos(tilt)]], np.float32)
        bones.append(ellipsoid((0, y, z), (half_width, half_depth, height / 2), turned, 4))
        disc_z = z - height / 2 - gap / 2
        discs.append(ellipsoid((0, y, disc_z), (half_width * 0.95, half_depth * 0.95, gap / 2 + 2), turned, 4))
        arch_y = y + half_depth + 9 * s
        bones += _arch(arch_y, z, height, s, rng)
        canals.append(capsule((0, arch_y, z - height / 2 - gap), (0, arch_y, z + height / 2), 7.5 * s))
    canal = union(canals)
    return union(bones) & ~canal, union(discs), canal


def _arch(y: float, z: float, height: float, s: float, rng: np.random.Generator) -> list[Region]:
    """Lamina ring, spinous process, transverse processes and facet columns behind one vertebral body."""
    parts = [
        ellipsoid((0, y, z - 2), (14 * s, 13 * s, height * 0.42), None, 3),
        capsule((0, y + 12, z - 4), (0, y + rng.uniform(28, 36) * s, z - 10), 3.5, 4.5),
        capsule((0, y + 12, z - 12), (0, y + 30 * s, z - 16), 3, 4),
    ]
    for side in (-1, 1):
        tip = (side * rng.uniform(36, 44) * s, y - 2 + rng.normal(0, 3), z + rng.normal(0, 3))
        parts.append(capsule((side * 14, y - 4, z), tip, 4.5, 3.5))
        parts.append(capsule((side * 17, y + 4, z + height * 0.5), (side * 18, y + 4, z - height * 0.55), 6, 7))
    return parts


def draw_ribs(canvas: Canvas, rng: np.random.Generator) -> None:
    """One to three lower ribs, following the inside of the subcutaneous fat."""
    under_fat = np.abs(canvas.depth_mm - (canvas.fat_mm + 8)) < 4
    ribs = np.zeros(SHAPE, np.bool_)
    for _ in range(rng.integers(1, 4)):
        level = rng.uniform(215, 330) + (Y + 40) * 0.45 + np.abs(X) * 0.1
        ribs |= (np.abs(Z - level) < rng.uniform(4, 6)) & under_fat & (rng.uniform(-90, 0) < Y) & (Z > 205)
    canvas.fill(ribs & canvas.body, Tissue.RIB)
