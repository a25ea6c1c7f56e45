"""Bladder, prostate with seminal vesicles, uterus with ovaries and vagina."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from appliance.phantoms.anatomy.canvas import Canvas
from appliance.phantoms.anatomy.patient import Patient
from appliance.phantoms.shapes import VOXEL_MM, Mask, Y, capsule, ellipsoid, rods, rotation, union
from appliance.phantoms.tissues import Structure, Tissue


@dataclass(frozen=True, slots=True)
class Bladder:
    """The bladder before anything is cut from it: centre and radii (x, y, z) in mm, and its mask."""

    centre_mm: np.ndarray
    radii_mm: np.ndarray
    mask: Mask

    @property
    def floor_mm(self) -> float:
        """Height of its lowest point."""
        return float(self.centre_mm[2] - self.radii_mm[2])


def draw_bladder_shape(patient: Patient, rng: np.random.Generator) -> Bladder:
    """A bladder of 45 to 650 ml behind the symphysis, often with a second bulge."""
    u, n = rng.uniform, rng.normal
    volume_mm3 = 1000 * np.exp(u(np.log(45), np.log(650)))
    shape = np.array([u(0.95, 1.3), u(0.8, 1.1), u(0.75, 1.4)])
    radii = (volume_mm3 * 0.2387 / shape.prod()) ** (1 / 3) * shape
    limits = np.array([58 * patient.width_scale, 46, 75])
    radii = np.minimum(radii * np.sqrt(np.maximum(1, radii[1] / limits[1])), limits)
    centre = np.array([n(0, 5), -47 + n(0, 5) + 0.9 * radii[1], -14 + 0.92 * radii[2] + n(0, 5)])
    regions = [ellipsoid(centre, radii, rotation(rng, 9), u(1.9, 3.0))]
    if rng.random() < 0.6:
        bulge = centre + np.array([n(0, 14), n(-7, 9), n(0.1 * radii[2], 0.35 * radii[2])])
        regions.append(ellipsoid(bulge, radii * u(0.55, 0.85), rotation(rng, 15)))
    return Bladder(centre, radii, union(regions))


def draw_bladder(canvas: Canvas, bladder: Bladder, rectum: Mask, rng: np.random.Generator) -> None:
    """Paint wall and urine, sometimes with contrast medium lying at the back; the rectum keeps its place."""
    mask = bladder.mask & canvas.inner & (canvas.depth_mm > 8) & ~rectum & (canvas.structure != Structure.PROSTATE)
    window = ndimage.find_objects(mask.astype(np.uint8))[0]
    canvas.fill(mask, Tissue.BLADDER_WALL, Structure.BLADDER)
    lumen = ndimage.distance_transform_edt(mask[window], sampling=VOXEL_MM) > rng.uniform(1.5, 4.5)
    canvas.tissue[window][lumen] = Tissue.URINE
    if rng.random() < 0.15 and lumen.any():
        heights = np.broadcast_to(Y[:, window[1], :], lumen.shape)
        layer = lumen & (heights > np.quantile(heights[lumen], rng.uniform(0.2, 0.9)))
        canvas.tissue[window][layer] = Tissue.OPACIFIED_URINE


def draw_male_organs(canvas: Canvas, bladder: Bladder, rectum: Mask, rng: np.random.Generator) -> None:
    """Prostate in its bed of fat below the bladder, seminal vesicles behind it, root of the penis in front."""
    u, n = rng.uniform, rng.normal
    radii = np.array([u(20, 30), u(14, 22), u(15, 25)])
    centre = np.array([n(0, 2), 2 + n(0, 4), min(bladder.floor_mm - radii[2] * u(0.5, 0.85), -12)])
    turned = rotation(rng, 8)
    soft = canvas.inner & ~rectum
    muscle = soft & (canvas.tissue == Tissue.MUSCLE)
    canvas.paint(ellipsoid(centre, radii + u(2.5, 7), turned), Tissue.VISCERAL_FAT, muscle)
    _draw_vesicles(canvas, centre, radii, rng)
    canvas.paint(ellipsoid(centre, radii, turned, u(2.0, 2.6)), Tissue.PROSTATE, soft, Structure.PROSTATE)
    penis = capsule((0, -12, centre[2] - radii[2] - 6), (0, -45, centre[2] - radii[2] - 30), 8)
    canvas.paint(penis, Tissue.MUSCLE, canvas.inner & (canvas.structure == Structure.BODY))


def _draw_vesicles(canvas: Canvas, centre: np.ndarray, radii: np.ndarray, rng: np.random.Generator) -> None:
    u, base = rng.uniform, centre[2] + radii[2]
    for side in (-1, 1):
        tip = (side * u(26, 38), centre[1] + u(14, 24), base + u(8, 20))
        vesicle = capsule((side * 4, centre[1] + radii[1] * 0.8, base), tip, u(4, 7))
        around = capsule((side * 4, centre[1] + radii[1] * 0.8, base), tip, u(7, 11))
        canvas.paint(around, Tissue.VISCERAL_FAT, canvas.inner & (canvas.tissue == Tissue.MUSCLE))
        canvas.paint(vesicle, Tissue.SEMINAL_VESICLE, canvas.inner & (canvas.tissue == Tissue.VISCERAL_FAT))


def draw_female_organs(canvas: Canvas, bladder: Bladder, rng: np.random.Generator) -> None:
    """Uterus and ovaries behind the bladder (not in everybody), and the vagina."""
    u, n, c, r = rng.uniform, rng.normal, bladder.centre_mm, bladder.radii_mm
    if rng.random() < 0.85:
        centre = np.array([c[0] + n(0, 10), c[1] + r[1] * 0.75 + u(8, 16), c[2] + r[2] * u(0.1, 0.7)])
        uterus = [ellipsoid(centre, (u(18, 38), u(14, 26), u(22, 45)), rotation(rng, 25))]
        for side in (-1, 1):
            ovary = centre + np.array([side * u(35, 50), n(0, 8), n(0, 10)])
            uterus += [ellipsoid(ovary, np.full(3, u(8, 18)))]
        canvas.fill(union(uterus) & canvas.cavity, Tissue.UTERUS)
    vagina = union(rods([(0, c[1] + r[1] + 4, c[2] - 0.3 * r[2]), (0, 14, -25), (0, 6, -60)], [10, 9, 8]))
    canvas.fill(vagina & canvas.inner & ~bladder.mask, Tissue.VAGINA)
