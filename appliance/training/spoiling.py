"""What goes wrong in real scans: a small field of view, a short scan, thick slices, a wrong calibration."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from appliance.phantoms.noise import Floats

_AIR_HU = -1000.0


def spoil(hu: Floats, classes: npt.NDArray[np.uint8], spacing_mm: float, rng: np.random.Generator) -> None:
    """Spoil a tile and its classes in place, each fault with its own chance."""
    if rng.random() < 0.2:
        _thicken(hu, rng)
    if rng.random() < 0.25:
        hu[:] = ndimage.uniform_filter(hu, 3) * np.float32(0.6) + hu * np.float32(0.4)
    hu *= np.float32(rng.uniform(0.93, 1.07))
    hu += np.float32(rng.uniform(-15, 15))
    if rng.random() < 0.25:
        _cut_out_boxes(hu, rng)
    if rng.random() < 0.3:
        _crop_to_circle(hu, classes, spacing_mm, rng)
    if rng.random() < 0.4:
        _end_the_scan(hu, classes, rng)


def _thicken(hu: Floats, rng: np.random.Generator) -> None:
    """Average neighbouring slices, as a scan with slices of 8 or 12 mm would."""
    count = int(rng.integers(2, 4))
    hu[:] = ndimage.uniform_filter1d(hu, count, axis=0)


def _cut_out_boxes(hu: Floats, rng: np.random.Generator) -> None:
    """Paint up to three boxes in a flat colour, so that no structure hangs on one landmark."""
    for _ in range(rng.integers(1, 4)):
        start = [int(rng.uniform(0, n - 8)) for n in hu.shape]
        z, y, x = (slice(s, s + int(rng.uniform(3, 9))) for s in start)
        hu[z, y, x] = rng.uniform(-200, 200)


def _crop_to_circle(hu: Floats, classes: npt.NDArray[np.uint8], spacing_mm: float, rng: np.random.Generator) -> None:
    """Leave only the scanner's circular field of view."""
    rows, columns = (((np.arange(n) - (n - 1) / 2) * spacing_mm + rng.normal(0, 15)) for n in hu.shape[1:])
    outside = np.hypot(rows[:, None], columns[None, :]) > rng.uniform(150, 230)
    hu[:, outside] = _AIR_HU
    classes[:, outside] = 0


def _end_the_scan(hu: Floats, classes: npt.NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Replace the slices beyond the first or last slice of a short scan by air."""
    missing = int(rng.uniform(1, hu.shape[0] * 0.5))
    gone = slice(0, missing) if rng.random() < 0.5 else slice(hu.shape[0] - missing, None)
    hu[gone] = _AIR_HU
    classes[gone] = 0
