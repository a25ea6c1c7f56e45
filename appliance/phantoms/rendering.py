"""From tissues to CT numbers: texture, metal streaks, blur and noise. Works on a grid of any voxel size."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from appliance.phantoms.noise import Floats, smooth_noise
from appliance.phantoms.tissues import Tissue, TissueTable

_MARROW = np.zeros(len(Tissue), np.bool_)
_MARROW[
    [Tissue.HIP_MARROW, Tissue.FEMUR_CANCELLOUS, Tissue.FEMORAL_HEAD, Tissue.SACRUM_MARROW, Tissue.SPINE_MARROW]
] = True


def add_texture(hu: Floats, tissue: npt.NDArray[np.uint8], table: TissueTable, rng: np.random.Generator) -> None:
    """Roughen each tissue in place: fine and coarse grain, uneven bone density, bubbles in stool, fat in muscle."""
    u, shape = rng.uniform, hu.shape
    fine, coarse = smooth_noise(rng, shape, u(1.2, 3.0)), smooth_noise(rng, shape, u(3, 8))
    hu += table.texture_hu[tissue] * (0.6 * fine + 0.6 * coarse)
    marrow = _MARROW[tissue]
    hu[marrow] += u(0, 90) * smooth_noise(rng, shape, u(4, 10))[marrow]
    stool = tissue == Tissue.STOOL
    bubbles = rng.standard_normal(int(stool.sum()), dtype=np.float32) > u(0.9, 2.2)
    hu[stool] -= bubbles * np.float32(u(200, 800))
    muscle = tissue == Tissue.MUSCLE
    hu[muscle] -= 80 * np.maximum(0, fine[muscle] - u(0.8, 2))


def add_metal_streaks(hu: Floats, metal: npt.NDArray[np.bool_], rng: np.random.Generator) -> None:
    """Bright and dark rays around metal, slice by slice, fading with distance; the pattern changes every few slices."""
    rows, columns = np.mgrid[: hu.shape[1], : hu.shape[2]].astype(np.float32)
    pattern = _draw_rays(rng)
    for z in np.nonzero(metal.any((1, 2)))[0]:
        if rng.random() < 0.4:
            pattern = _draw_rays(rng)
        frequencies, phases, strength_hu, reach = pattern
        row, column = ndimage.center_of_mass(metal[z])
        angle = np.arctan2(rows - row, columns - column)
        distance = np.hypot(rows - row, columns - column)
        rays = sum(np.cos(f * angle + p) for f, p in zip(frequencies, phases, strict=True)) / np.sqrt(len(phases))
        hu[z] += strength_hu * rays * np.exp(-distance / reach)


def _draw_rays(rng: np.random.Generator) -> tuple[Floats, Floats, float, float]:
    count = rng.integers(2, 9)
    frequencies = (2 * rng.integers(1, 12, count)).astype(np.float32)
    return frequencies, rng.uniform(0, 6.28, count).astype(np.float32), rng.uniform(40, 500), rng.uniform(12, 45)


def add_scanner_noise(hu: Floats, rng: np.random.Generator, sd_hu: float) -> None:
    """Add white or slightly smoothed noise and a slow drift of the CT numbers, in place."""
    noise = rng.standard_normal(hu.shape, dtype=np.float32)
    smoothing = rng.uniform(0, 0.9)
    if smoothing > 0.3:
        noise = ndimage.gaussian_filter(noise, smoothing, truncate=2.0)
        noise /= noise.std()
    hu += np.float32(sd_hu) * noise
    hu += np.float32(rng.uniform(0, 12)) * smooth_noise(rng, hu.shape, max(hu.shape) / 2.5)
