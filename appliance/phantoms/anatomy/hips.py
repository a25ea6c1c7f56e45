"""Hip bones: iliac wing, acetabulum, ischium and pubis, left and right."""

from dataclasses import dataclass

import numpy as np

from appliance.phantoms.anatomy.bones import wobbled
from appliance.phantoms.anatomy.patient import Patient
from appliance.phantoms.noise import smooth_noise
from appliance.phantoms.shapes import SHAPE, Z_MM, Floats, Mask, Region, X, Y, Z, capsule, ellipsoid, union


@dataclass(frozen=True, slots=True)
class HipJoint:
    """Where one femoral head sits: centre (x, y, z), its radius, the joint gap, all in mm; side -1 right, +1 left."""

    side: int
    centre_mm: np.ndarray
    head_radius_mm: float
    gap_mm: float


@dataclass(frozen=True, slots=True)
class _Wing:
    """Iliac wing as a plate swept along z: its front and back edge, bend and half thickness at each level, in mm."""

    levels_mm: np.ndarray
    front_x: np.ndarray
    front_y: np.ndarray
    back_x: np.ndarray
    back_y: np.ndarray
    bend: np.ndarray
    half_thickness: np.ndarray


def draw_joints(patient: Patient, rng: np.random.Generator) -> tuple[HipJoint, HipJoint]:
    """Right and left hip joint."""
    half, scale = patient.hip_half_distance_mm, patient.bone_scale
    right, left = (
        HipJoint(side, np.array([side * half, 0.0, 0.0]), rng.uniform(22, 26) * scale, rng.uniform(2, 4.5))
        for side in (-1, 1)
    )
    return right, left


def hip_bones(joints: tuple[HipJoint, HipJoint], patient: Patient, rng: np.random.Generator) -> Mask:
    """Both hip bones as one mask, with the joint spaces and the symphysis left free."""
    wing, roughness = _draw_wing(patient, rng), smooth_noise(rng, SHAPE, 9)
    mask = np.zeros(SHAPE, np.bool_)
    for joint in joints:
        mask |= _wing_mask(wing, joint.side, roughness, rng)
        _acetabulum(joint, rng).add_to(mask)
        for region in _ischium_and_pubis(joint.side, patient, rng):
            region.add_to(mask)
    for joint in joints:
        room = ellipsoid(joint.centre_mm, np.full(3, joint.head_radius_mm + joint.gap_mm))
        mask[room.window] &= ~room.mask
    mask &= np.abs(X) > rng.uniform(1.5, 3.5)
    return mask


def symphysis(rng: np.random.Generator) -> Region:
    """Cartilage between the two pubic bones."""
    return ellipsoid((0, -47 + rng.normal(0, 2), -36), (5, 10, 17), None, 4)


def _draw_wing(patient: Patient, rng: np.random.Generator) -> _Wing:
    n, w = rng.normal, patient.width_scale
    flare = rng.uniform(0.85, 1.15) * (1.0 if patient.is_male else 1.04)
    levels = np.array([8, 18, 30, 45, 65, 82, 100, 120, 136]) * patient.scale * rng.uniform(0.93, 1.06)
    front_x = 90 + (np.array([86, 92, 97, 105, 116, 126, 134, 136, 134]) - 90) * flare
    front_y = np.array([-26, -32, -40, -50, -55, -56, -40, -14, 8]) + n(0, 6) * levels / 100
    back_x = np.array([66, 66, 66, 50, 44, 46, 56, 82, 116])
    back_y = np.array([38, 44, 50, 72, 86, 90, 82, 62, 38])
    bend = (np.array([0, -2, -3, -5, -7, -8, -7, -4, 0]) + n(0, 2)) * rng.uniform(0.4, 1.8)
    return _Wing(
        levels_mm=levels,
        front_x=wobbled(front_x * w, rng, 3),
        front_y=wobbled(front_y, rng, 4),
        back_x=wobbled(back_x * w, rng, 3),
        back_y=wobbled(back_y, rng, 4),
        bend=wobbled(bend, rng, 2),
        half_thickness=np.array([14, 13, 10, 7, 4.2, 3.6, 3.6, 4.5, 4.5]) * rng.uniform(0.85, 1.2),
    )


def _wing_mask(wing: _Wing, side: int, roughness: Floats, rng: np.random.Generator) -> Mask:
    rows = (wing.levels_mm[0] - 6 < Z_MM) & (wing.levels_mm[-1] + 3 > Z_MM)
    shift = rng.normal(0, 1.5, 4)

    def level(values: np.ndarray) -> Floats:
        return np.asarray(np.interp(Z_MM[rows], wing.levels_mm, values)[:, None, None], dtype=np.float32)

    front_x, front_y = level(wing.front_x + shift[0]), level(wing.front_y + shift[1])
    dx, dy = level(wing.back_x + shift[2]) - front_x, level(wing.back_y + shift[3]) - front_y
    length = np.sqrt(dx * dx + dy * dy)
    along = ((side * X - front_x) * dx + (Y - front_y) * dy) / length**2
    across = ((Y - front_y) * dx - (side * X - front_x) * dy) / length
    place = np.clip(along, 0, 1)
    across = across - level(wing.bend) * (np.sin(place * np.pi) + 0.3 * np.sin(place * 2 * np.pi))
    thickening = 1 + 1.1 * np.exp(-(((along - 1) / 0.22) ** 2)) + 0.6 * np.exp(-((along / 0.14) ** 2))
    half = level(wing.half_thickness) * thickening + 0.6 * roughness[rows]
    rounding = np.clip(np.minimum(along, 1 - along) * length / np.maximum(half, 1), 0, 1)
    mask = np.zeros(SHAPE, np.bool_)
    mask[rows] = (np.abs(across) < half * np.sqrt(1 - (1 - rounding) ** 2)) & (along > 0) & (along < 1)
    return mask


def _acetabulum(joint: HipJoint, rng: np.random.Generator) -> Region:
    """A cup around the femoral head, open to the side, the front and below."""
    inner = joint.head_radius_mm + joint.gap_mm
    window = ellipsoid(joint.centre_mm, np.full(3, inner + 16)).window
    sz, sy, sx = window
    x = (X[:, :, sx] - joint.centre_mm[0]) * joint.side
    y, z = Y[:, sy, :] - joint.centre_mm[1], Z[sz, :, :] - joint.centre_mm[2]
    r = np.sqrt(x * x + y * y + z * z) + 1e-3
    opening = np.array([0.78, -0.3 + rng.normal(0, 0.08), -0.5 + rng.normal(0, 0.08)])
    opening /= np.linalg.norm(opening)
    towards_opening = (x * opening[0] + y * opening[1] + z * opening[2]) / r
    wall = rng.uniform(5, 9) + 6 * np.clip(z / 30, 0, 1) + 3 * np.clip(y / 30, 0, 1)
    return Region(window, (r > inner) & (r < inner + wall) & (towards_opening < rng.uniform(0.12, 0.3)))


def _ischium_and_pubis(side: int, patient: Patient, rng: np.random.Generator) -> list[Region]:
    s, w, female = patient.bone_scale, patient.width_scale, 0 if patient.is_male else 1

    def point(x: float, y: float, z: float) -> np.ndarray:
        return np.array([side * x * w, y, z]) + rng.normal(0, 2.2, 3)

    body, tuber = point(72, 34, -35), point(56 + 3 * female, 36, -62)
    ramus = point(45 + 4 * female, 12, -78 + 6 * female)
    lower_pubis = np.array([side * (11.0 + 4 * female), -44 + rng.normal(0, 3), -50 + rng.normal(0, 3)])
    upper_pubis = np.array([side * 13.0, -50 + rng.normal(0, 3), -24 + rng.normal(0, 3)])
    upper_ramus = point(38, -46, -8)
    return [
        capsule(point(80, 28, -12), body, 15 * s, 14 * s),
        capsule(body, tuber, 14 * s, 13 * s),
        capsule(point(68, 40, 5), point(50, 52, 8), 9, 4),
        capsule(point(54, 30, -68), ramus, 9 * s, 6.5 * s),
        capsule(ramus, lower_pubis, 6.5 * s, 8 * s),
        capsule(lower_pubis, upper_pubis, 9 * s, 9 * s),
        capsule(upper_pubis, upper_ramus, 9 * s, 8 * s),
        capsule(upper_ramus, point(70, -28, 8), 8 * s, 11 * s),
    ]


def joint_spaces(joints: tuple[HipJoint, HipJoint]) -> Mask:
    """Cartilage around both femoral heads."""
    return union(ellipsoid(j.centre_mm, np.full(3, j.head_radius_mm + j.gap_mm)) for j in joints)
