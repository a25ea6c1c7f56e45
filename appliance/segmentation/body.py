"""The patient's outline and the couch, found in the Hounsfield units alone.

What is dense and thick is patient; what is dense, thin, wide and at the same place in slice after slice is the couch.
Both are sought on a grid of about 3 mm in the plane, and drawn on the CT's own.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from appliance.dicom.ct_volume import CtVolume
from appliance.dicom.roi import RoiMask
from appliance.segmentation.couch import CouchSection, find_couch
from appliance.segmentation.parts import connected_parts, fill_axial_holes
from appliance.segmentation.regions import SignedPlane, nothing, region, signed_certainty
from appliance.segmentation.working_grid import Box

SKIN_HU = -300
"""Between air and skin, and above the foam of couches and cushions."""

SURE_HU = 700
"""How far from `SKIN_HU` a voxel is sure of its side: as far as air is."""

COARSE_MM = 3.0
"""Pixels of the grid on which the body is sought."""

THICK_MM = 6.0
"""What a disc of this radius does not fit into is too thin to be looked for: shells, sheets, tubes, fingers."""

FINGER_MM = 12.0
"""How far thin parts of the body may stick out of the thick ones."""

SMALL_PART = 0.1
"""A part that is not connected with the largest belongs to the patient from this share of it on: another leg."""

SPECK_MM2 = 50.0
"""What is smaller than this in a slice, and on its own, is no part of the body."""

Mask = NDArray[np.bool_]


class Outlines:
    """The patient and the couch of one CT; each is sought when it is first asked for."""

    def __init__(self, volume: CtVolume) -> None:
        self._volume = volume

    @cached_property
    def body(self) -> RoiMask:
        """The patient's outline, without the couch, with all air that a slice encloses; empty if there is none.

        The outline runs at `SKIN_HU`, interpolated between voxels. Air that is open to the outside stays outside. Where
        the patient lies on a dense plate with nothing between them, the plate may be part of the outline there.
        """
        if not self._scene.patient.any():
            return nothing("body")
        planes = (self._body_plane(index) for index in range(len(self._volume.hu)))
        return region("body", whole_grid(self._volume.hu.shape), planes)

    @cached_property
    def couch(self) -> RoiMask:
        """The couch, filled, without what the patient's outline holds; empty if none is seen."""
        couch = self._scene.couch
        if couch is None:
            return nothing("couch")
        shape = self._volume.hu.shape[1:]
        sections = np.stack([couch.section_in(index, shape) for index in range(len(self._volume.hu))])
        if not self.body.is_empty:
            sections[self.body.box] &= ~self.body.voxels
        return RoiMask.from_volume("couch", sections)

    @cached_property
    def _scene(self) -> "_Scene":
        return _Scene.of(self._volume)

    def _body_plane(self, index: int) -> SignedPlane:
        hu = self._volume.hu[index]
        inside = (hu > SKIN_HU) & self._scene.around(index)
        regions, count = ndimage.label(inside)
        large = np.bincount(regions.ravel(), minlength=count + 1) >= SPECK_MM2 / pixel_mm2(self._volume)
        large[0] = False
        inside = fill_axial_holes(large[regions][np.newaxis])[0]
        above = hu.astype(np.float32) - np.float32(SKIN_HU)
        # what is filled, or left out although it is dense, is sure: contours there do not follow the Hounsfield units
        certainty = np.where((above > 0) == inside, np.abs(above) / np.float32(SURE_HU), np.float32(1))
        return signed_certainty(inside, certainty)


@dataclass(frozen=True, slots=True, eq=False)
class _Scene:
    """What was found on the coarse grid.

    Attributes:
        shape: of a slice of the CT, (y, x).
        factor: pixels of the CT in one of the coarse grid.
        patient: the patient and a coarse pixel around, (z, y, x) on the coarse grid.
        couch: the couch, if there is one.
    """

    shape: tuple[int, ...]
    factor: int
    patient: Mask
    couch: CouchSection | None

    @classmethod
    def of(cls, volume: CtVolume) -> Self:
        """Look for thick parts, for the couch beside them, and for thin parts that belong to the thick ones."""
        pixel_mm = math.sqrt(pixel_mm2(volume))
        factor = max(1, round(COARSE_MM / pixel_mm))
        shape = volume.hu.shape[1:]
        dense = np.stack([_shrunk(plane > SKIN_HU, factor) for plane in volume.hu])
        disc = _disc(THICK_MM / (factor * pixel_mm))
        thick = np.stack([ndimage.binary_opening(plane, disc) for plane in dense])

        def near(index: int) -> Mask:
            return _grown(ndimage.binary_dilation(thick[index]), factor, shape)

        couch = find_couch(volume, near)
        parts, sizes = connected_parts(thick)
        kept = sizes >= SMALL_PART * max(1.0, sizes.max())
        steps = max(1, round(FINGER_MM / (factor * pixel_mm)))
        patient = np.empty_like(thick)
        for index, plane in enumerate(parts):
            free = dense[index]
            if couch is not None:
                free = free & ~_shrunk(couch.shell_in(index, shape), factor)
            with_fingers = ndimage.binary_dilation(kept[plane], iterations=steps, mask=free)
            patient[index] = ndimage.binary_dilation(kept[plane] | with_fingers)
        return cls(shape, factor, patient, couch)

    def around(self, index: int) -> Mask:
        """Where the patient may be in one slice of the CT, (y, x)."""
        where = _grown(self.patient[index], self.factor, self.shape)
        return where if self.couch is None else where & ~self.couch.shell_in(index, self.shape)


def whole_grid(shape: tuple[int, ...]) -> Box:
    """Return the box of a whole grid (z, y, x)."""
    slices, rows, columns = shape
    return slice(0, slices), slice(0, rows), slice(0, columns)


def pixel_mm2(volume: CtVolume) -> float:
    """Return the area of a pixel."""
    return float(np.prod(volume.geometry.pixel_spacing_mm))


def _disc(radius: float) -> Mask:
    reach = int(radius)
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    return np.asarray(x * x + y * y <= radius * radius)


def _shrunk(plane: Mask, factor: int) -> Mask:
    """Make blocks of pixels one; True where more than half of them are."""
    if factor == 1:
        return plane
    rows, columns = (-(-length // factor) * factor for length in plane.shape)
    padded = np.pad(plane, ((0, rows - plane.shape[0]), (0, columns - plane.shape[1])), mode="edge")
    counts = padded.reshape(rows // factor, factor, columns // factor, factor).sum(axis=(1, 3), dtype=np.int32)
    return np.asarray(2 * counts > factor * factor)


def _grown(plane: Mask, factor: int, shape: tuple[int, ...]) -> Mask:
    """Make blocks of one pixel again."""
    return plane.repeat(factor, axis=0).repeat(factor, axis=1)[: shape[0], : shape[1]]
