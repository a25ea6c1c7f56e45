"""Muscles beside the spine and pelvis, great vessels, small vessels and nodes in the abdominal fat."""

import numpy as np

from appliance.phantoms.anatomy.canvas import Canvas
from appliance.phantoms.anatomy.patient import Patient
from appliance.phantoms.shapes import Region, capsule, ellipsoid, rods, union
from appliance.phantoms.tissues import Tissue

_SIDES = (-1, 1)


def draw_muscles(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    """Psoas and iliacus, erector spinae, quadratus lumborum, piriformis and obturator internus."""
    y = patient.spine_y_mm
    regions: list[Region] = []
    for s in _SIDES:
        r = rng.uniform(0.8, 1.25)
        psoas = [
            (25, y(280) + 8, 280),
            (34, y(200) + 6, 200),
            (45, y(130), 130),
            (62, -22, 50),
            (78, -32, 5),
            (104, 0, -60),
        ]
        erector = [(34, y(330) + 42, 330), (36, y(200) + 45, 200), (30, 62, 120), (18, 100, 40)]
        for points, radii in (
            (psoas, (8, 17 * r, 23 * r, 20 * r, 15 * r, 9)),
            (erector, (23 * r, 27 * r, 24 * r, 8)),
            ([(60, 40, 285), (75, 45, 140)], (8, 16 * r)),
            ([(35, 70, 40), (100, 25, 5)], (10, 8)),
            ([(62, 10, 15), (55, 20, -50)], (9, 9)),
        ):
            regions += rods([(s * px, py, pz) for px, py, pz in points], radii)
    canvas.fill(union(regions) & canvas.inner, Tissue.MUSCLE)


def draw_great_vessels(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    """Aorta and vena cava with their iliac and femoral branches."""
    n, y = rng.normal, patient.spine_y_mm
    fork, r = rng.uniform(120, 150), rng.uniform(6, 10)
    cava = [(x + n(0, 3), y(z) - 28, z) for x, z in ((-24, 330), (-22, 230), (-18, fork - 10))]
    aorta = [(x + n(0, 3), y(z) - 33, z) for x, z in ((8, 330), (6, 230), (4, fork))]
    veins, arteries = rods(cava, (r + 2, r + 2, r + 1)), rods(aorta, (r + 2, r + 1, r))
    for s in _SIDES:
        way = [(26, y(fork) - 18, fork - 45), (52, 8, 60), (68, -35, 15), (70, -62, -25), (78, -62, -90)]
        beside = [(s * (px - 6), py + 10, pz) for px, py, pz in way]
        before = [(s * px + n(0, 2), py + n(0, 2), pz + n(0, 2)) for px, py, pz in way]
        veins += rods([cava[-1], *beside], [r, r * 0.8, r * 0.7, r * 0.7, r * 0.7, r * 0.7])
        arteries += rods([aorta[-1], *before], [r * 0.8, r * 0.65, r * 0.6, r * 0.55, r * 0.5, r * 0.5])
    canvas.fill(union(veins) & canvas.inner, Tissue.VEIN)
    canvas.fill(union(arteries) & canvas.inner, Tissue.ARTERY)


def draw_small_vessels(canvas: Canvas, rng: np.random.Generator) -> None:
    """Mesenteric vessels and lymph nodes, only where there is visceral fat."""
    u, regions = rng.uniform, []
    for _ in range(rng.integers(20, 80)):
        start = np.array([u(-110, 110), u(-90, 60), u(-30, 240)])
        direction = rng.normal(0, 1, 3)
        direction /= np.linalg.norm(direction)
        bend = start + direction * u(5, 45)
        end = bend + (direction + rng.normal(0, 0.5, 3)) * u(5, 30)
        radius = u(1.6, 3.2)
        regions += [capsule(start, bend, radius), capsule(bend, end, radius, radius * 0.8)]
    for _ in range(rng.integers(0, 8)):
        regions.append(ellipsoid((u(-110, 110), u(-90, 60), u(-60, 200)), u(3, 8, 3)))
    canvas.fill(union(regions) & canvas.cavity & (canvas.tissue == Tissue.VISCERAL_FAT), Tissue.VEIN)
