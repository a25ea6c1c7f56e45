"""A small patient of two materials, whose right contours are known from the HU alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.ct_files import all_slices, make_ct_series

SHAPE = (12, 48, 48)
SPACING_MM = (3.0, 4.0, 4.0)
AIR_HU, BODY_HU, BONE_HU = -1000, 40, 700


def bony_hu(shape: tuple[int, int, int] = SHAPE, bone_radius: float = 6.0) -> NDArray[np.int16]:
    """Hounsfield units (z, y, x): a round body with a round bone in its middle."""
    _, rows, columns = shape
    y, x = np.indices((rows, columns))
    from_middle = np.hypot(y - (rows - 1) / 2, x - (columns - 1) / 2)
    plane = np.full((rows, columns), AIR_HU)
    plane[from_middle < 0.4 * rows] = BODY_HU
    plane[from_middle < bone_radius] = BONE_HU
    return np.broadcast_to(plane, shape).astype(np.int16)


def make_patient(folder: Path, series: str, *, slices: int = SHAPE[0], **options: Any) -> list[Path]:
    """The patient's CT as files, ascending; `series` is the seed of its UIDs, everything else can be replaced."""
    shape = (slices, *SHAPE[1:])
    defaults: dict[str, Any] = {
        "slices": slices,
        "rows": shape[1],
        "columns": shape[2],
        "gap_mm": SPACING_MM[0],
        "pixel_spacing_mm": SPACING_MM[1:],
        "hu": bony_hu(shape),
    }
    return make_ct_series(folder, series=series, **{**defaults, **options})


def make_slow_patient(
    folder: Path, series: str, body_part: str = "ABDOMEN", shape: tuple[int, int, int] = (40, 128, 128)
) -> list[Path]:
    """A patient who keeps a worker busy for a few seconds, where the protocol for the part of the body is slow."""
    slow = all_slices(BodyPartExamined=body_part)
    return make_patient(
        folder, series, slices=shape[0], rows=shape[1], columns=shape[2], hu=bony_hu(shape), mutate=slow
    )


def interleave(*series: Sequence[Path]) -> list[Path]:
    """One slice of each in turn."""
    return [path for together in zip(*series, strict=True) for path in together]
