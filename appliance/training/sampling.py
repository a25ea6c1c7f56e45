"""Training tiles: a phantom bent, rendered as a new scan and spoilt as real scans are, all on the working grid."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from torch.utils.data import Dataset

from appliance.phantoms.noise import Floats, smooth_noise
from appliance.phantoms.rendering import add_metal_streaks, add_scanner_noise, add_texture
from appliance.phantoms.shapes import FIRST_CORNER_MM, SHAPE, VOXEL_MM, rotation
from appliance.phantoms.tissues import Tissue, draw_tissue_table
from appliance.training.classes import CLASS_INDEX
from appliance.training.config import InputChannel, NetworkConfig
from appliance.training.dataset import PhantomStore
from appliance.training.spoiling import spoil

Codes = npt.NDArray[np.uint8]
_LEAST_BODY = 0.03
"""Share of a tile that must be patient; tiles of air are drawn again."""


def to_channels(hu: Floats, channels: tuple[InputChannel, ...]) -> Floats:
    """CT windows as network input: (z, y, x) in HU to (channel, z, y, x)."""
    return np.stack([np.clip((hu - c.offset_hu) / c.scale_hu, *c.clip) for c in channels]).astype(np.float32)


@dataclass(frozen=True, slots=True)
class TileGrid:
    """Voxels (z, y, x) of a tile and the distance between them."""

    shape: tuple[int, int, int]
    spacing_mm: float


@dataclass(frozen=True, slots=True)
class TileDataset(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Tiles by number: tile `index` of one seed is always the same, so that a run can be resumed anywhere."""

    store: PhantomStore
    seeds: tuple[int, ...]
    network: NetworkConfig
    tile: tuple[int, int, int]
    stream: tuple[int, ...]

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Input (channel, z, y, x), float32, and class indices (z, y, x), uint8."""
        rng = np.random.default_rng([*self.stream, index])
        while True:
            tissue, structure = self.store.read(self.seeds[rng.integers(len(self.seeds))])
            hu, codes = render_tile(tissue, structure, TileGrid(self.tile, self.network.spacing_mm), rng)
            classes = CLASS_INDEX[codes]
            spoil(hu, classes, self.network.spacing_mm, rng)
            # Instance normalisation of pure air multiplies rounding errors into infinite gradients.
            if np.count_nonzero(classes) > _LEAST_BODY * classes.size:
                return torch.from_numpy(to_channels(hu, self.network.channels)), torch.from_numpy(classes)


def render_tile(tissue: Codes, structure: Codes, grid: TileGrid, rng: np.random.Generator) -> tuple[Floats, Codes]:
    """One tile of the phantom in HU with its structures, both (z, y, x) on the working grid."""
    centre_mm = _draw_centre(rng)
    points = _draw_points(grid, rng) + centre_mm.astype(np.float32)
    z_index = (points[..., 2] - np.float32(FIRST_CORNER_MM[2])) / VOXEL_MM
    low = int(np.clip(np.floor(z_index.min()) - 1, 0, SHAPE[0] - 2))
    high = int(np.clip(np.ceil(z_index.max()) + 1, low + 2, SHAPE[0]))
    tissue, structure = np.asarray(tissue[low:high]), np.asarray(structure[low:high])
    corner = FIRST_CORNER_MM + np.array([0, 0, low * VOXEL_MM])
    size_mm = np.array([SHAPE[2], SHAPE[1], high - low]) * VOXEL_MM
    where = torch.from_numpy(((points - corner) * 2 / size_mm - 1).astype(np.float32))[None]
    table = draw_tissue_table(rng)
    hu = _sample(table.mean_hu[tissue] + 1000, where, "bilinear") - 1000
    nearest = np.rint(_sample(_indices(tissue.shape), where, "nearest")).astype(np.int32) - 1
    outside = nearest < 0
    near_tissue = np.where(outside, np.uint8(Tissue.AIR), tissue.ravel()[nearest])
    near_structure = np.where(outside, np.uint8(0), structure.ravel()[nearest])
    add_texture(hu, near_tissue, table, rng)
    metal = near_tissue == Tissue.METAL
    if metal.any():
        add_metal_streaks(hu, metal, rng)
    add_scanner_noise(hu, rng, float(np.exp(rng.uniform(np.log(4), np.log(40)))))
    return hu, near_structure


def _draw_centre(rng: np.random.Generator) -> Floats:
    """Centre (x, y, z) in mm: two tiles in three look at the pelvis, the rest anywhere along the body."""
    z = rng.uniform(-60, 130) if rng.random() < 0.65 else rng.uniform(-120, 300)
    return np.array([rng.normal(0, 18), rng.normal(0, 14), z], dtype=np.float32)


def _draw_points(grid: TileGrid, rng: np.random.Generator) -> Floats:
    """Phantom coordinates (z, y, x, 3) in mm of each voxel: turned, scaled, mirrored and gently bent."""
    axes = [((np.arange(n) - (n - 1) / 2) * grid.spacing_mm).astype(np.float32) for n in grid.shape]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    matrix = rotation(rng, 6) / (rng.uniform(0.85, 1.18) * rng.uniform(0.93, 1.07, 3)).astype(np.float32)
    if rng.random() < 0.5:
        matrix = matrix * np.array([-1, 1, 1], np.float32)
    bend_mm = rng.uniform(0, 8)
    points = np.empty((*grid.shape, 3), np.float32)
    for k, row in enumerate(matrix):
        points[..., k] = row[0] * x + row[1] * y + row[2] * z + bend_mm * smooth_noise(rng, grid.shape, 16)
    return points


def _indices(shape: tuple[int, ...]) -> Floats:
    """Flat index + 1 of each voxel; exact in float32 below 2^24 voxels."""
    return np.arange(1, int(np.prod(shape)) + 1, dtype=np.float32).reshape(shape)


def _sample(values: Floats, grid: torch.Tensor, mode: str) -> Floats:
    """Values (z, y, x) at normalised points (1, z, y, x, 3); zero outside."""
    volume = torch.from_numpy(values)[None, None]
    sampled = functional.grid_sample(volume, grid, mode=mode, padding_mode="zeros", align_corners=False)
    return np.asarray(sampled[0, 0].numpy())
