"""The couch under the patient."""

import numpy as np

from appliance.phantoms.anatomy.canvas import Canvas
from appliance.phantoms.shapes import Y_MM, X, Y
from appliance.phantoms.tissues import Tissue


def draw_couch(canvas: Canvas, rng: np.random.Generator) -> None:
    """Flat or curved plate of foam with a thin shell; one scan in ten has none in view."""
    if rng.random() >= 0.9:
        return
    u = rng.uniform
    lowest = Y_MM[np.nonzero(canvas.body.any((0, 2)))[0][-1]]
    curve = u(-0.0012, 0.0012) if rng.random() < 0.6 else 0.0
    top, thickness, half_width = lowest + u(0, 8) + 3 + curve * X**2, u(12, 60), u(180, 260)
    plate = (top < Y) & (top + thickness > Y) & (np.abs(X) < half_width) & np.ones_like(canvas.body) & ~canvas.body
    shell = plate & ((top + u(3, 6) > Y) | (top + thickness - u(3, 6) < Y) | (np.abs(X) > half_width - 4))
    canvas.fill(plate, Tissue.COUCH_FOAM)
    canvas.fill(shell, Tissue.COUCH_SHELL)
