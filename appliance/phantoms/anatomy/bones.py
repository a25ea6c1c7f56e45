"""What all bones share: a bright cortex one voxel thick around a darker marrow."""

import numpy as np

from appliance.phantoms.anatomy.canvas import Canvas
from appliance.phantoms.shapes import Mask
from appliance.phantoms.tissues import Structure, Tissue


def core(mask: Mask) -> Mask:
    """The mask without its outermost voxels (six neighbours)."""
    inside = mask.copy()
    for axis in range(3):
        low, high = [slice(None)] * 3, [slice(None)] * 3
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        inside[tuple(low)] &= mask[tuple(high)]
        inside[tuple(high)] &= mask[tuple(low)]
    return inside


def grown(mask: Mask) -> Mask:
    """The mask with one more voxel all around (six neighbours)."""
    return ~core(~mask)


def draw_bone(canvas: Canvas, mask: Mask, tissues: tuple[Tissue, Tissue], structure: Structure) -> None:
    """Paint a bone; `tissues` are its cortex and its marrow. Bone within 4 mm of the skin is left out."""
    inside = mask & canvas.body & (canvas.depth_mm > 4)
    canvas.fill(inside, tissues[0], structure)
    canvas.tissue[core(inside)] = tissues[1]


def wobbled(values: np.ndarray, rng: np.random.Generator, sd: float) -> np.ndarray:
    """Add a smooth wobble to control points along a bone, so that no two bones are the same."""
    wobble = rng.normal(0, sd, len(values))
    wobble = (np.r_[wobble[:1], wobble[:-1]] + 2 * wobble + np.r_[wobble[1:], wobble[-1:]]) / 4
    return np.asarray(values + 1.6 * wobble)
