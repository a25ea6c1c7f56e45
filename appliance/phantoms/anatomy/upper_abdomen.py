"""Organs above the pelvis. None is an ROI: they are there so that a network learns what is not bowel."""

import numpy as np

from appliance.phantoms.anatomy.canvas import Canvas
from appliance.phantoms.anatomy.patient import Patient
from appliance.phantoms.shapes import X, Y, Z, ellipsoid, rotation
from appliance.phantoms.tissues import Structure, Tissue


def draw_upper_abdomen(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    """Liver, spleen, kidneys, stomach and the bases of the lungs."""
    u, n, floor, w = rng.uniform, rng.normal, patient.liver_floor_mm, patient.width_scale
    liver = ellipsoid((-70 * w, -15 + n(0, 8), floor + 95), (u(70, 90), u(70, 95), u(60, 100)), rotation(rng, 15), 2.2)
    spleen = ellipsoid((92 * w, 25, floor + 110), (u(25, 40), u(35, 55), u(35, 60)), rotation(rng, 15), 2.2)
    stomach = ellipsoid((40 + n(0, 10), -40, floor + 105), (u(40, 60), u(25, 45), u(25, 45)), rotation(rng, 25), 2.2)
    canvas.paint(liver, Tissue.LIVER, canvas.cavity)
    canvas.paint(spleen, Tissue.SPLEEN, canvas.cavity)
    canvas.paint(stomach, Tissue.STOMACH, canvas.cavity)
    for side in (-1, 1):
        if rng.random() < 0.95:
            _draw_kidney(canvas, np.array([side * u(55, 68), 38 + n(0, 6), floor + 45 + side * 8 + n(0, 12)]), rng)
    dome = u(270, 345) + np.abs(Y - 20) * 0.15 + (np.abs(X) - 70) ** 2 * 0.004
    lung = canvas.body & (canvas.depth_mm > canvas.fat_mm + 8) & (dome < Z) & (np.abs(X) > 40)
    canvas.fill(lung, Tissue.LUNG)


def _draw_kidney(canvas: Canvas, centre_mm: np.ndarray, rng: np.random.Generator) -> None:
    radii = np.array([rng.uniform(22, 30), rng.uniform(22, 30), rng.uniform(45, 62)])
    turned = rotation(rng, 12)
    canvas.paint(ellipsoid(centre_mm, radii, turned), Tissue.KIDNEY, canvas.cavity, Structure.KIDNEY)
    sinus = ellipsoid(centre_mm - np.array([np.sign(centre_mm[0]) * 8, 0, 0]), radii * rng.uniform(0.25, 0.5), turned)
    canvas.paint(sinus, Tissue.RENAL_PELVIS, canvas.cavity)
