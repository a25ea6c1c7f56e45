"""Femurs: head, neck, trochanters and as much shaft as the grid holds."""

from dataclasses import dataclass

import numpy as np

from appliance.phantoms.anatomy.bones import draw_bone
from appliance.phantoms.anatomy.canvas import Canvas
from appliance.phantoms.anatomy.hips import HipJoint
from appliance.phantoms.anatomy.patient import Patient
from appliance.phantoms.shapes import Mask, capsule, ellipsoid, rotation, union
from appliance.phantoms.tissues import Structure, Tissue


@dataclass(frozen=True, slots=True)
class Femur:
    """One femur: its mask, its marrow canal and the points (x, y, z in mm) that an implant would follow."""

    joint: HipJoint
    mask: Mask
    canal: Mask
    neck_mm: np.ndarray
    trochanter_mm: np.ndarray
    shaft_mm: np.ndarray
    mid_shaft_mm: np.ndarray

    @property
    def structure(self) -> Structure:
        """Left or right, as the patient sees it."""
        return Structure.FEMUR_LEFT if self.joint.side > 0 else Structure.FEMUR_RIGHT


def draw_femur_shape(joint: HipJoint, patient: Patient, rng: np.random.Generator) -> Femur:
    """A femur turned in or out at its joint."""
    s = patient.bone_scale
    turn = np.deg2rad(rng.normal(0, 10))
    turned = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])

    def point(x: float, y: float, z: float) -> np.ndarray:
        return np.asarray(joint.centre_mm + np.array([joint.side, 1, 1]) * (turned @ np.array([x, y, z])) * s)

    neck, trochanter, shaft = point(40, 6, -26), point(58, 14, -22), point(50, 4, -55)
    mid, end = point(48, 0, -150), point(40, -8 + rng.normal(0, 10), -260)
    upper = point(47, 1, -110)
    head = ellipsoid(joint.centre_mm, np.full(3, joint.head_radius_mm))
    trochanter_shape = ellipsoid(trochanter, np.array([15, 20, 22]) * s, rotation(rng, 10))
    rods = [
        capsule(point(12, 2, -8), neck, 15 * s, 17 * s),
        capsule(neck, shaft, 19 * s, 18 * s),
        capsule(shaft, upper, 18 * s, 14.5 * s),
        capsule(upper, end, 14.5 * s, 13.5 * s),
        capsule(point(32, 26, -62), shaft, 9, 9),
    ]
    canal = union([capsule(point(49, 2, -85), end, rng.uniform(6, 9))])
    return Femur(joint, union([head, trochanter_shape, *rods]), canal, neck, point(50, 8, 5), shaft, mid)


def draw_femurs(canvas: Canvas, femurs: tuple[Femur, Femur], rng: np.random.Generator) -> None:
    """Paint both femurs, the denser middle of their heads, and sometimes an implant in one of them."""
    for femur in femurs:
        draw_bone(canvas, femur.mask, (Tissue.FEMUR_CORTEX, Tissue.FEMUR_CANCELLOUS), femur.structure)
        cancellous = canvas.tissue == Tissue.FEMUR_CANCELLOUS
        radius = femur.joint.head_radius_mm
        middle = femur.joint.centre_mm + rng.normal(0, 4, 3)
        canvas.paint(ellipsoid(middle, radius * rng.uniform(0.3, 0.8, 3)), Tissue.FEMORAL_HEAD, cancellous)
        canvas.fill(femur.canal & cancellous, Tissue.FEMUR_MARROW)
    if rng.random() < 0.22:
        _draw_implant(canvas, femurs[rng.integers(2)], rng)


def _draw_implant(canvas: Canvas, femur: Femur, rng: np.random.Generator) -> None:
    """A hip replacement, a nail with its neck screw, or three screws; metal counts as femur, as planners draw it."""
    head, kind = femur.joint.centre_mm, rng.integers(3)
    if kind == 0:
        ball = ellipsoid(head, np.full(3, femur.joint.head_radius_mm * 0.8))
        metal = union([ball, capsule(head, femur.neck_mm, 8), capsule(femur.neck_mm, femur.mid_shaft_mm, 8, 6)])
    elif kind == 1:
        metal = union([capsule(femur.trochanter_mm, femur.mid_shaft_mm, 6), capsule(head, femur.shaft_mm, 5)])
        metal &= femur.mask
    else:
        screws = [capsule(head + rng.normal(0, 4, 3), femur.shaft_mm + rng.normal(0, 4, 3), 3.5) for _ in range(3)]
        metal = union(screws) & femur.mask
    canvas.fill(metal & canvas.body, Tissue.METAL, femur.structure)
