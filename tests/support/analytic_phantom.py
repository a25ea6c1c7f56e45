"""27 structures of which the truth is known everywhere, not at voxel centres only.

They stand for what makes contouring hard: a body that leaves the image at both sides, a shell of 4 mm, holes and
islands within holes, many parts, plates and nerves as thin as a voxel, voxels that touch by a corner only. Each is a
function of the position in the patient, and is evaluated at the voxel centres of each image by that image's own
position.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import inf

import numpy as np
from numpy.typing import NDArray

from tests.support.image_planes import ImagePlane
from tests.support.implicit_shapes import Shape, all_of, ball, block, ellipsoid, tube, turned

_FAR_MM = 2000.0
_LUNG_VESSELS_MM = ((-30, -10, 2.5), (-10, 25, 3.0), (10, -35, 3.5), (25, 15, 4.0), (0, 0, 4.5))
"""Where vessels pass through a lung, from its middle, and their radii."""
_PLUS = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))
_ZIGZAG = ((0, 0), (1, 1), (2, 0), (3, 1), (4, 2))


@dataclass(frozen=True, eq=False)
class Voxels:
    """A region on a grid.

    Attributes:
        shape: slices, rows and columns of the whole grid.
        box: the part of the grid outside of which the probability is 0.
        probability: in the box; 0.5 on the surface and linear in the distance from it, over a voxel to each side.
    """

    shape: tuple[int, int, int]
    box: tuple[slice, slice, slice]
    probability: NDArray[np.float32]

    def whole(self) -> NDArray[np.float32]:
        """Return the probability on the whole grid, (z, y, x)."""
        grid = np.zeros(self.shape, dtype=np.float32)
        grid[self.box] = self.probability
        return grid

    def mask(self) -> NDArray[np.bool_]:
        """Return the voxels of the region on the whole grid, (z, y, x)."""
        grid = np.zeros(self.shape, dtype=np.bool_)
        grid[self.box] = self.probability > 0.5
        return grid


def structures(planes: Sequence[ImagePlane]) -> dict[str, Shape]:
    """Return all structures by name; those of single voxels lie on voxel centres of these images."""
    body = _body()
    return {
        "External": body,
        "Skin": body - body.shrunk(4.0),
        **_thorax(),
        **_abdomen(),
        **_pelvis(),
        **_head(),
        "PTV": (ellipsoid((30, 30, 150), (60, 55, 70)) - ellipsoid((30, 30, 150), (42, 38, 55)))
        | ellipsoid((30, 30, 150), (25, 22, 40)),
        "CouchSurface": _couch(),
        "Diagonal": _voxels(planes, [(0, _ZIGZAG), (1, _ZIGZAG), (2, _ZIGZAG[:2])]),
        "Tiny": _voxels(planes, [(-2, _PLUS[:1]), (0, _PLUS[:2]), (2, _PLUS)]),
    }


def voxelise(shape: Shape, planes: Sequence[ImagePlane]) -> Voxels:
    """Evaluate a structure at the voxel centres of a series, each shape within its own box only."""
    grid = (len(planes), planes[0].rows, planes[0].columns)
    ramp_mm = max(planes[0].spacing_mm)
    evaluated = ((index, _sheet(shape, plane, ramp_mm)) for index, plane in enumerate(planes))
    sheets = {index: sheet for index, sheet in evaluated if sheet is not None}
    if not sheets:
        return Voxels(grid, (slice(0, 0),) * 3, np.zeros((0, 0, 0), dtype=np.float32))
    first, windows = min(sheets), [window for window, _ in sheets.values()]
    rows, columns = (
        slice(min(one[axis].start for one in windows), max(one[axis].stop for one in windows)) for axis in (0, 1)
    )
    box = (slice(first, max(sheets) + 1), rows, columns)
    probability = np.zeros([side.stop - side.start for side in box], dtype=np.float32)
    for index, ((down, across), values) in sheets.items():
        probability[
            index - first,
            down.start - rows.start : down.stop - rows.start,
            across.start - columns.start : across.stop - columns.start,
        ] = values
    return Voxels(grid, box, probability)


def _sheet(shape: Shape, plane: ImagePlane, ramp_mm: float) -> tuple[tuple[slice, slice], NDArray[np.float32]] | None:
    """Return the probability on one image and the rows and columns that it covers; None if there is none of it."""
    low_mm, high_mm = np.clip([shape.low_mm, shape.high_mm], -_FAR_MM, _FAR_MM)
    corners_mm = np.array(list(product(*zip(low_mm - ramp_mm, high_mm + ramp_mm, strict=True))))
    heights_mm = (corners_mm - plane.origin_mm) @ plane.normal
    if heights_mm.min() > 0.0 or heights_mm.max() < 0.0:
        return None
    columns, rows = plane.to_pixels(corners_mm)
    window = (_within(rows, plane.rows), _within(columns, plane.columns))
    down, across = (np.arange(side.start, side.stop, dtype=np.float64) for side in window)
    distance_mm = shape.field(*plane.to_patient_mm(across[np.newaxis, :], down[:, np.newaxis]))
    values = np.clip(0.5 - distance_mm / (2.0 * ramp_mm), 0.0, 1.0).astype(np.float32)
    return (window, np.broadcast_to(values, (len(down), len(across)))) if values.any() else None


def _within(indices: NDArray[np.float64], count: int) -> slice:
    first, last = np.clip([np.floor(indices.min()), np.ceil(indices.max()) + 1], 0, count).astype(int).tolist()
    return slice(first, last)


def _body() -> Shape:
    torso = ellipsoid((-12, 30, 0), (185, 115, inf)) & block((-12, 30, -60), (inf, inf, 300))
    shoulders = ellipsoid((-12, 40, 200), (290, 85, 70))
    neck, head = tube(((-12, 40, 180), (-12, 35, 300)), 60), ellipsoid((-12, 25, 325), (78, 98, 95))
    return torso | shoulders | neck | head


def _couch() -> Shape:
    """Return a cradle 28 mm thick; it is nowhere level, so that its surface crosses rows of voxels."""
    arch_mm = (-12, -828, 0)
    cradle = ellipsoid(arch_mm, (1014, 1014, inf)) - ellipsoid(arch_mm, (986, 986, inf))
    return cradle & block((-12, 145, 0), (inf, 45, inf))


def _thorax() -> dict[str, Shape]:
    gullet = ((-12, 70, -20), (-16, 68, 120), (-10, 62, 200), (-12, 50, 270))
    return {
        "Lung_L": _lung(73),
        "Lung_R": _lung(-97),
        "Heart": turned(ellipsoid((8, 0, 110), (60, 45, 60)), 35) - ellipsoid((15, 0, 110), (18, 15, 30)),
        "SpinalCord": tube(((-12, 100, -140), (-10, 95, 50), (-14, 92, 180), (-12, 60, 260), (-12, 40, 310)), 6),
        "Esophagus": tube(gullet, 9) - tube(gullet, 4),
        "Trachea": tube(((-12, 50, 170), (-12, 35, 285)), 9),
        "A_Aorta": tube(((-14, 78, -90), (6, 75, -20), (8, 72, 170)), 12),
    }


def _lung(x_mm: float) -> Shape:
    vessels = [
        tube(((x_mm + x, 30 + y, -20), (x_mm + 1.2 * x, 30 + 1.1 * y, 300)), radius_mm)
        for x, y, radius_mm in _LUNG_VESSELS_MM
    ]
    return ellipsoid((x_mm, 30, 140), (66, 84, 140)) - all_of(vessels)


def _abdomen() -> dict[str, Shape]:
    loops = []
    for part in range(14):
        x_mm, y_mm = 38 * (part % 5) - 88, 36 * (part // 5) - 10
        loops.append(tube(((x_mm, y_mm, -110), (x_mm + 8, y_mm + 6, 5 * part)), 12 + part % 3))
    return {
        "Liver": ellipsoid((-85, 20, 20), (95, 90, 90)) - ellipsoid((-40, 70, -10), (60, 50, 70)),
        "Kidney_L": turned(ellipsoid((50, 75, -10), (28, 22, 55)), 20) - ball((38, 70, -10), 12),
        "Kidney_R": turned(ellipsoid((-75, 75, -15), (28, 22, 55)), -20) - ball((-63, 70, -15), 12),
        "Stomach": ellipsoid((60, 0, 25), (65, 55, 60)) - ellipsoid((60, 0, 30), (45, 38, 45)),
        "Bowel": all_of(loops),
    }


def _pelvis() -> dict[str, Shape]:
    return {
        "Bladder": ellipsoid((-12, 0, -90), (45, 38, 32)),
        "Prostate": ellipsoid((-12, 35, -108), (22, 18, 14)),
        "Rectum": tube(((-12, 85, -140), (-14, 75, -100), (-10, 80, -60)), 16),
        "Femur_Head_L": ball((78, 40, -98), 24),
        "Femur_Head_R": ball((-102, 40, -98), 24),
    }


def _head() -> dict[str, Shape]:
    return {
        "Brain": ellipsoid((-12, 25, 340), (65, 82, 78)),
        "OpticChiasm": block((-12, -10, 315), (7, 0.9, 4)),
        "Lens_L": ball((20, -62, 310), 3),
        "OpticNrv_L": tube(((20, -55, 309), (-8, -12, 316)), 1.1),
    }


def _voxels(planes: Sequence[ImagePlane], sheets: Sequence[tuple[int, Sequence[tuple[int, int]]]]) -> Shape:
    """Return balls a little smaller than a voxel, given by row and column, on images counted from the middle one."""
    balls = []
    for step, places in sheets:
        plane = planes[len(planes) // 2 + step]
        for row, column in places:
            position_mm = plane.to_patient_mm(
                np.float64(plane.columns // 3 + column), np.float64(plane.rows // 3 + row)
            )
            balls.append(ball([float(axis_mm) for axis_mm in position_mm], 0.45 * min(plane.spacing_mm)))
    return all_of(balls)
