"""What the network tells apart, and how the phantom's truth maps onto it."""

import numpy as np

from appliance.phantoms.tissues import Structure

CLASSES = (
    "background",
    "body",
    "Bladder",
    "Rectum",
    "Prostate",
    "femur",
    "hip",
    "sacrum",
    "Bowel",
    "vertebra",
    "kidney",
)
"""Output channels of the network. Left and right femur are one class: a mirror-symmetric network learns it faster, and
the midline of the pelvis tells them apart afterwards."""

_CLASS_OF = {
    Structure.OUTSIDE: "background",
    Structure.BODY: "body",
    Structure.BLADDER: "Bladder",
    Structure.RECTUM: "Rectum",
    Structure.PROSTATE: "Prostate",
    Structure.FEMUR_LEFT: "femur",
    Structure.FEMUR_RIGHT: "femur",
    Structure.HIP: "hip",
    Structure.SACRUM: "sacrum",
    Structure.BOWEL: "Bowel",
    Structure.VERTEBRA: "vertebra",
    Structure.KIDNEY: "kidney",
}

CLASS_INDEX = np.array([CLASSES.index(_CLASS_OF[structure]) for structure in Structure], dtype=np.uint8)
"""Class index of each `Structure`."""
