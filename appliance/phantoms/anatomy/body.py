"""Skin, fat, muscle wall and the cavity: everything between the air and the organs."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.interpolate import PchipInterpolator

from appliance.phantoms.anatomy.canvas import Canvas
from appliance.phantoms.anatomy.patient import Patient
from appliance.phantoms.noise import smooth_noise
from appliance.phantoms.shapes import SHAPE, VOXEL_MM, Z_MM, Floats, Mask, Region, X, Y, Z, ellipsoid, rotation
from appliance.phantoms.tissues import Structure, Tissue

_LEVELS_MM = (-150, -90, -40, 0, 50, 100, 150, 210, 270, 330)


@dataclass(frozen=True, slots=True)
class _Outline:
    """Half-axes of the body's cross-section along z, shaped (z, 1, 1), in mm."""

    half_width: Floats
    front: Floats
    back: Floats
    middle_y: Floats
    power: float


def draw_body(patient: Patient, rng: np.random.Generator) -> Canvas:
    """A body filled with fat and muscle, with an empty (fat-filled) cavity, ready for organs."""
    outline = _draw_outline(patient, rng)
    body = _body_mask(outline, patient, rng)
    depth = ndimage.distance_transform_edt(body, sampling=VOXEL_MM).astype(np.float32)
    wobble = smooth_noise(rng, SHAPE, 14)
    fat = _fat_thickness(patient, rng, wobble)
    inner = body & (depth > fat)
    cavity = _cavity_mask(patient, rng) & (depth > fat + rng.uniform(9, 20) + 2 * wobble)
    tissue = np.zeros(SHAPE, np.uint8)
    tissue[body] = Tissue.SUBCUTANEOUS_FAT
    tissue[body & (depth < 2)] = Tissue.SKIN
    tissue[inner] = Tissue.MUSCLE
    tissue[cavity] = Tissue.VISCERAL_FAT
    tissue[_fat_septa(patient, rng) & inner & ~cavity & (depth > fat + 6)] = Tissue.VISCERAL_FAT
    structure = np.where(body, np.uint8(Structure.BODY), np.uint8(Structure.OUTSIDE))
    return Canvas(tissue, structure, body, depth, fat, inner, cavity)


def _along_z(levels_mm: tuple[float, ...], values: npt.ArrayLike) -> Floats:
    curve = PchipInterpolator(np.asarray(levels_mm, float), np.asarray(values, float))
    return np.asarray(curve(Z_MM), dtype=np.float32)[:, None, None]


def _draw_outline(patient: Patient, rng: np.random.Generator) -> _Outline:
    n, fatness, scale = rng.normal, patient.fatness_mm, patient.scale
    width = np.array([168, 174, 180, 178, 170, 156, 148, 148, 152, 154]) * patient.width_scale * 0.95
    front = np.array([72, 80, 90, 92, 92, 92, 92, 95, 100, 104]) * scale * rng.uniform(0.9, 1.1)
    back = np.array([90, 100, 111, 114, 112, 105, 100, 100, 104, 106]) * scale * rng.uniform(0.93, 1.08)
    belly = fatness * rng.uniform(0, 0.8) * np.exp(-(((Z_MM - 120) / 90.0) ** 2))[:, None, None]
    front_curve = _along_z(_LEVELS_MM, front + fatness * 0.55 + n(0, 3, 10)) + belly
    return _Outline(
        half_width=np.minimum(_along_z(_LEVELS_MM, width + fatness * 0.75 + n(0, 5, 10)), 213),
        front=np.minimum(front_curve, 158).astype(np.float32),
        back=np.minimum(_along_z(_LEVELS_MM, back + fatness * 0.5 + n(0, 3, 10)), 150),
        middle_y=_along_z(_LEVELS_MM, np.array([5, 8, 8, 8, 5, 0, -3, -3, 0, 0]) + n(0, 2, 10)),
        power=rng.uniform(2.1, 2.9),
    )


def _body_mask(outline: _Outline, patient: Patient, rng: np.random.Generator) -> Mask:
    u = rng.uniform
    y = Y - outline.middle_y
    half_depth = np.where(y < 0, outline.front, outline.back)
    body = (np.abs(X / outline.half_width) ** outline.power + np.abs(y / half_depth) ** outline.power) < 1
    crotch_mm, thigh = u(-95, -60), outline.half_width * u(0.44, 0.5)
    thighs = (
        (np.abs(np.abs(X) - outline.half_width * 0.52) / thigh) ** 2.2 + (np.abs(y) / (outline.front * 1.02)) ** 2.2
    ) < 1
    body = np.where(crotch_mm > Z, thighs, body)
    body &= ~((np.abs(X) < u(3, 7)) & (y > outline.back * u(0.7, 0.85)) & (u(10, 40) > Z))
    if patient.is_male and rng.random() < 0.8:
        front = float(outline.front[np.abs(Z_MM - crotch_mm).argmin(), 0, 0])
        _scrotum(front * u(0.75, 1.0), crotch_mm, rng).add_to(body)
    table_y = max(float(outline.middle_y.mean() + outline.back.mean()) * u(0.88, 1.0), 113 * patient.scale)
    sag = u(0, 0.0012) if rng.random() < 0.6 else 0.0
    body &= table_y - sag * X**2 > Y
    return np.asarray(ndimage.binary_opening(body))


def _scrotum(front_mm: float, crotch_mm: float, rng: np.random.Generator) -> Region:
    centre = (rng.normal(0, 8), -front_mm, crotch_mm + rng.uniform(0, 35))
    return ellipsoid(centre, (rng.uniform(18, 32), rng.uniform(22, 38), rng.uniform(22, 35)), rotation(rng, 20))


def _fat_thickness(patient: Patient, rng: np.random.Generator, wobble: Floats) -> Floats:
    behind = 0.35 * np.clip(Y / 100, -1, 1) * rng.uniform(-0.3, 1)
    below = 0.25 * np.clip((60 - Z) / 120, -1, 1)
    thickness = (3 + patient.fatness_mm * rng.uniform(0.5, 0.9)) * (1 + behind + below)
    return np.maximum(thickness + wobble * 2 * min(1, patient.fatness_mm / 15), 3).astype(np.float32)


def _cavity_mask(patient: Patient, rng: np.random.Generator) -> Mask:
    width = np.array([30, 45, 58, 62, 95, 112, 118, 128]) * patient.width_scale * rng.uniform(0.95, 1.08)
    half_width = _along_z((-60, -30, 0, 40, 80, 110, 150, 330), width)
    front = _along_z((-60, -30, 0, 40, 80, 330), (-30, -45, -60, -85, -150, -150))
    back = _along_z((-60, -30, 0, 40, 80, 110, 140, 330), (62, 75, 82, 80, 70, 40, 45, 60))
    middle, half_depth = (front + back) / 2, (back - front) / 2
    inside = np.abs(X / half_width) ** 2.6 + np.abs((Y - middle) / half_depth) ** 2.6 < 1
    return np.asarray(inside & (Z > -40))


def _fat_septa(patient: Patient, rng: np.random.Generator) -> Mask:
    """Sheets of fat between muscles: where a random field crosses zero."""
    thickness = rng.uniform(0.02, 0.12) * (1 + patient.fatness_mm / 40)
    first, second = (np.abs(smooth_noise(rng, SHAPE, rng.uniform(7, 12))) < thickness for _ in range(2))
    return first | second
