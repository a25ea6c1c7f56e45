"""A synthetic pelvic CT with known truth: one seed, one phantom, bit for bit."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from appliance.phantoms.anatomy import Anatomy, build_complete_anatomy
from appliance.phantoms.anatomy.patient import Sex
from appliance.phantoms.noise import Floats, smooth_noise, stretch
from appliance.phantoms.rendering import add_metal_streaks, add_texture
from appliance.phantoms.shapes import FIRST_CORNER_MM, SHAPE, VOXEL_MM
from appliance.phantoms.tissues import ROI_STRUCTURES, Tissue, draw_tissue_table

_ANATOMY_SIZE_MM = np.array(SHAPE) * VOXEL_MM
_ANATOMY_CORNER_MM = FIRST_CORNER_MM[::-1]
_PELVIS_CENTRE_MM = 40.0
"""Height above the hip joints on which a scan shorter than the anatomy is centred."""
_AIR_HU, _LOWEST_HU, _HIGHEST_HU = -1000.0, -1024, 3071


@dataclass(frozen=True, slots=True)
class Phantom:
    """A synthetic CT and the truth about it.

    Attributes:
        hu: CT numbers (z, y, x), int16; z rises to the head, y to the back, x to the patient's left.
        truth: one mask (z, y, x) per TG-263 ROI name; an ROI of which nothing lies in the scan has no key.
        spacing_mm: distance between voxel centres along (z, y, x).
        origin_mm: patient position (x, y, z), LPS, of the centre of voxel [0, 0, 0]; (0, 0, 0) lies between the hips.
        seed: the number that it was made from.
        sex: "male" phantoms have a prostate.
    """

    hu: npt.NDArray[np.int16]
    truth: Mapping[str, npt.NDArray[np.bool_]]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    seed: int
    sex: Sex


def make_phantom(
    seed: int,
    *,
    spacing_mm: tuple[float, float, float] = (3.0, 1.0, 1.0),
    shape: tuple[int, int, int] | None = None,
    sex: Sex | None = None,
) -> Phantom:
    """Make the phantom of one seed on any grid.

    Args:
        seed: any non-negative integer; the same arguments give the same voxels.
        spacing_mm: along (z, y, x), in mm.
        shape: voxels along (z, y, x). None covers the whole anatomy: 480 mm by 333 mm by 444 mm. A larger grid is
            filled with air; a shorter one is centred on the pelvis.
        sex: None leaves it to the seed.
    """
    anatomy = build_complete_anatomy(seed, sex)
    spacing = np.array(spacing_mm, float)
    size = np.maximum(1, np.rint(_ANATOMY_SIZE_MM / spacing)).astype(int) if shape is None else np.array(shape)
    first_mm = _first_voxel_mm(size, spacing)
    positions = [
        (first_mm[k] + np.arange(size[k]) * spacing[k] - _ANATOMY_CORNER_MM[k]) / VOXEL_MM - 0.5 for k in range(3)
    ]
    z, y, x = (float(v) for v in first_mm)
    return Phantom(
        hu=_render(anatomy, positions, spacing, np.random.default_rng([seed, 2])),
        truth=_truth(anatomy, positions, _field_of_view(size, spacing)),
        spacing_mm=spacing_mm,
        origin_mm=(x, y, z),
        seed=seed,
        sex=anatomy.sex,
    )


def _first_voxel_mm(size: npt.NDArray[np.int_], spacing: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Patient position (z, y, x) of the first voxel's centre."""
    centre = _ANATOMY_CORNER_MM + _ANATOMY_SIZE_MM / 2
    length = size[0] * spacing[0]
    if length < _ANATOMY_SIZE_MM[0]:
        low = _ANATOMY_CORNER_MM[0] + length / 2
        centre[0] = np.clip(_PELVIS_CENTRE_MM, low, low + _ANATOMY_SIZE_MM[0] - length)
    return np.asarray(centre - (size - 1) * spacing / 2)


def _field_of_view(size: npt.NDArray[np.int_], spacing: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """The circle (y, x) that the scanner reconstructs: as wide as the longer side of the image."""
    y, x = ((np.arange(size[k]) - (size[k] - 1) / 2) * spacing[k] for k in (1, 2))
    radius = max(size[1] * spacing[1], size[2] * spacing[2]) / 2
    return np.asarray(np.hypot(y[:, None], x[None, :]) <= radius)


def _render(
    anatomy: Anatomy,
    positions: list[npt.NDArray[np.float64]],
    spacing: npt.NDArray[np.float64],
    rng: np.random.Generator,
) -> npt.NDArray[np.int16]:
    coarse = _render_anatomy(anatomy, rng)
    size = tuple(len(p) for p in positions)
    circle = _field_of_view(np.array(size), spacing)
    sd_hu = np.float32(np.exp(rng.uniform(np.log(6), np.log(25))))
    # Outside the anatomy's own grid there is only air.
    inside_y, inside_x = (_within(p, n) for p, n in zip(positions[1:], SHAPE[1:], strict=True))
    visible = circle & inside_y[:, None] & inside_x[None, :]
    hu = np.empty(size, np.int16)
    for k, z in enumerate(positions[0]):
        plane = np.full(size[1:], _AIR_HU, np.float32)
        if -0.5 <= z <= SHAPE[0] - 0.5:
            plane = _plane(coarse, z, positions)
            plane[~visible] = _AIR_HU
        plane += sd_hu * _grain(rng, plane.shape)
        plane[~circle] = _LOWEST_HU
        np.clip(plane, _LOWEST_HU, _HIGHEST_HU, out=plane)
        hu[k] = np.rint(plane)
    return hu


def _render_anatomy(anatomy: Anatomy, rng: np.random.Generator) -> Floats:
    """CT numbers on the anatomy grid, free of noise."""
    table = draw_tissue_table(rng)
    hu: Floats = table.mean_hu[anatomy.tissue]
    add_texture(hu, anatomy.tissue, table, rng)
    metal = anatomy.tissue == Tissue.METAL
    if metal.any():
        add_metal_streaks(hu, metal, rng)
    hu += np.float32(rng.uniform(0, 8)) * smooth_noise(rng, hu.shape, 60)
    blurred: Floats = ndimage.gaussian_filter(hu, rng.uniform(0.3, 0.5), truncate=2.5)
    return blurred


def _plane(volume: Floats, z: float, positions: list[npt.NDArray[np.float64]]) -> Floats:
    """One axial plane (y, x) of a volume on the anatomy grid, at a fractional slice index."""
    plane = stretch(volume, 0, np.array([z]))[0] if volume.shape[0] > 1 else volume[0]
    return stretch(stretch(plane, 0, positions[1]), 1, positions[2])


def _grain(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Unit noise with the short correlation that a reconstruction filter leaves."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    noise[1:] += np.float32(0.6) * noise[:-1]
    noise[:, 1:] += np.float32(0.6) * noise[:, :-1]
    return noise * np.float32(1 / 1.6)


def _within(positions: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.bool_]:
    return (positions >= -0.5) & (positions <= count - 0.5)


def _truth(
    anatomy: Anatomy, positions: list[npt.NDArray[np.float64]], circle: npt.NDArray[np.bool_]
) -> dict[str, npt.NDArray[np.bool_]]:
    size = tuple(len(p) for p in positions)
    truth = {}
    for name, structures in ROI_STRUCTURES.items():
        coarse = np.isin(anatomy.structure, structures)
        mask = _resampled_mask(coarse, positions, size)
        mask &= circle
        if mask.any():
            truth[name] = mask
    return truth


def _resampled_mask(
    coarse: npt.NDArray[np.bool_], positions: list[npt.NDArray[np.float64]], size: tuple[int, ...]
) -> npt.NDArray[np.bool_]:
    """A mask of the anatomy grid on the scan's grid: more than half inside after linear interpolation."""
    mask = np.zeros(size, np.bool_)
    found = ndimage.find_objects(coarse.astype(np.uint8))
    if not found:
        return mask
    # One voxel of margin, cut at the grid's edge, keeps the half-way contour inside the window.
    window = tuple(slice(max(0, s.start - 1), min(n, s.stop + 1)) for s, n in zip(found[0], SHAPE, strict=True))
    rows = [np.nonzero((p >= w.start - 0.5) & (p <= w.stop - 0.5))[0] for p, w in zip(positions, window, strict=True)]
    if any(len(r) == 0 for r in rows):
        return mask
    local = [p[r] - w.start for p, r, w in zip(positions, rows, window, strict=True)]
    values = coarse[window].astype(np.float32)
    target = mask[:, rows[1][0] : rows[1][-1] + 1, rows[2][0] : rows[2][-1] + 1]
    for k, z in zip(rows[0], local[0], strict=True):
        target[k] = _plane(values, float(z), local) > 0.5
    return mask
