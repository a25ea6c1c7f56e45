"""What can be wrong with a whole scan: the faults on which a model's doubts are calibrated and measured.

Each comes in any severity from 0, where one has to look for it, to 1, where nobody would plan on it. The faults of
orientation have no severity: there the header says that the patient lies otherwise than he does.
"""

from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from appliance.phantoms.noise import Floats

_LOWEST_HU, _HIGHEST_HU = -1024, 3071


class Fault(StrEnum):
    """One fault each; a scan without any is `CLEAN`."""

    CLEAN = "clean"
    NOISE = "noise"  #: white noise, standard deviation 60 to 250 HU
    BLUR = "blur"  #: Gaussian, standard deviation 2.4 to 8.8 mm
    HU_SHIFT = "HU shift"  #: all values too high or too low by 40 to 250 HU
    STREAKS = "streaks"  #: rays of 150 to 800 HU from one point, over some slices
    BACK_TO_FRONT = "back to front"  #: mirrored from front to back
    UPSIDE_DOWN = "upside down"  #: mirrored from head to feet
    MIRRORED = "mirrored"  #: left and right exchanged alone, which no image of the pelvis gives away
    TURNED = "turned"  #: the patient lies on the other side than the header says; left and right are exchanged, too


FLIPPED_AXES: dict[Fault, tuple[int, ...]] = {
    Fault.BACK_TO_FRONT: (1,),
    Fault.UPSIDE_DOWN: (0,),
    Fault.MIRRORED: (2,),
    Fault.TURNED: (1, 2),
}
"""Axes (z, y, x) along which the voxels, and the truth with them, run the other way."""


def spoiled(
    hu: npt.NDArray[np.int16],
    fault: Fault,
    severity: float,
    spacing_mm: tuple[float, float, float],
    rng: np.random.Generator,
) -> npt.NDArray[np.int16]:
    """Return a scan (z, y, x) with a fault; the given one stays as it is.

    Args:
        hu: the scan.
        fault: what is wrong with it.
        severity: 0 to 1.
        spacing_mm: between voxels along (z, y, x).
        rng: where the fault's own accidents come from.
    """
    values: Floats = hu.astype(np.float32)
    if fault is Fault.NOISE:
        values += np.float32(60 + 190 * severity) * rng.standard_normal(values.shape, dtype=np.float32)
    elif fault is Fault.BLUR:
        width_mm = 2.4 + 6.4 * severity
        values = ndimage.gaussian_filter(values, [width_mm / axis_mm for axis_mm in spacing_mm])
    elif fault is Fault.HU_SHIFT:
        values += np.float32(rng.choice([-1, 1]) * (40 + 210 * severity))
    elif fault is Fault.STREAKS:
        _add_streaks(values, 150 + 650 * severity, rng)
    else:
        values = np.flip(values, FLIPPED_AXES.get(fault, ()))
    return np.asarray(np.rint(values).clip(_LOWEST_HU, _HIGHEST_HU), np.int16)


def turned(mask: npt.NDArray[np.bool_], fault: Fault) -> npt.NDArray[np.bool_]:
    """Return a mask (z, y, x) as a fault of orientation leaves it; of other faults as it is."""
    return np.ascontiguousarray(np.flip(mask, FLIPPED_AXES.get(fault, ())))


def _add_streaks(hu: Floats, strength_hu: float, rng: np.random.Generator) -> None:
    """Add rays around one point of each slice, strongest in some slice and fading from there, in place."""
    slices, rows, columns = hu.shape
    row, column = rows * rng.uniform(0.35, 0.65), columns * rng.uniform(0.25, 0.75)
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    angle, distance = np.arctan2(y - row, x - column), np.hypot(y - row, x - column)
    middle, reach = slices * rng.uniform(0.2, 0.6), slices * rng.uniform(0.1, 0.3)
    for index in range(slices):
        rays = np.sin(rng.integers(5, 14) * angle + np.float32(rng.uniform(0, 2 * np.pi)))
        strength = strength_hu * np.exp(-(((index - middle) / reach) ** 2))
        hu[index] += np.float32(strength) * rays * np.exp(-distance / np.float32(0.35 * columns))
