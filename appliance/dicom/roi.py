"""Regions of interest: what one is called, and which voxels it holds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from appliance.dicom.geometry import SeriesGeometry

#: the characters of TG-263 names; how many of them a planning system keeps stands in its own profile (16 is usual)
RoiName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_~^+\-]{1,64}$")]
Ascii = Annotated[str, StringConstraints(pattern=r"^[ -\[\]-~]{1,64}$", strip_whitespace=True)]
Intensity = Annotated[int, Field(ge=0, le=255)]

#: RT ROI Interpreted Type, those that an automatic draft may claim (PS3.3 §C.8.8.8.1)
InterpretedType = Literal[
    "EXTERNAL", "ORGAN", "AVOIDANCE", "CAVITY", "SUPPORT", "FIXATION", "GTV", "CTV", "PTV", "DOSE_REGION"
]


class RoiCode(BaseModel):
    """A coded meaning, such as (89837001, SCT, "Urinary bladder")."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.\-]{1,16}$")]
    scheme: Annotated[str, StringConstraints(pattern=r"^[A-Z0-9]{1,16}$")] = "SCT"
    meaning: Ascii


class RoiTemplate(BaseModel):
    """How one region is written into a structure set.

    Attributes:
        name: TG-263 primary name.
        number: ROI number, the same in every result.
        colour: red, green and blue, 0-255.
        interpreted_type: what the planning system shall take it for.
        code: what it is in SNOMED CT, where that is known.
        fma: what it is in the Foundational Model of Anatomy, where that is known.
        side: of the patient, for one of a pair.
        sex: the Patient's Sex that alone has it; it is not drawn in patients known to be of the other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: RoiName
    number: Annotated[int, Field(ge=1, le=9999)]
    colour: tuple[Intensity, Intensity, Intensity]
    interpreted_type: InterpretedType = "ORGAN"
    code: RoiCode | None = None
    fma: RoiCode | None = None
    side: Literal["left", "right"] | None = None
    sex: Literal["M", "F"] | None = None

    def exists_in(self, patient_sex: str) -> bool:
        """Whether a patient of this sex can have it; anything but M and F leaves the question open."""
        return self.sex is None or patient_sex not in {"M", "F"} or patient_sex == self.sex


@dataclass(frozen=True, eq=False)
class RoiMask:
    """The voxels of one region, within a box of the series' grid.

    Attributes:
        name: the region's name.
        box: where the box lies in the grid: slices along (z, y, x) with plain start and stop.
        voxels: True where the region is, shape (z, y, x) of the box.
        certainty: how sure each voxel is of its side, 1 to 255, shape of the box; contours run closer to the less
            certain of two neighbours, in proportion. Halfway between them where it is None.
    """

    name: str
    box: tuple[slice, slice, slice]
    voxels: NDArray[np.bool_]
    certainty: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        if tuple(side.stop - side.start for side in self.box) != self.voxels.shape:
            raise ValueError(f"box {self.box} does not fit voxels of shape {self.voxels.shape}")
        if self.certainty is not None and self.certainty.shape != self.voxels.shape:
            raise ValueError(f"certainty of shape {self.certainty.shape} for voxels of shape {self.voxels.shape}")

    @classmethod
    def from_volume(cls, name: str, voxels: NDArray[np.bool_]) -> Self:
        """Crop a mask of the whole grid to the box that holds its True voxels."""
        box = _filled_box(voxels)
        return cls(name, box, voxels[box])

    @classmethod
    def from_probabilities(cls, name: str, probabilities: NDArray[np.floating] | NDArray[np.uint8]) -> Self:
        """Take the voxels that are more likely inside than not; contours then run where both are equally likely.

        Args:
            name: the region's name.
            probabilities: for each voxel of the whole grid (z, y, x), 0 to 1, or 0 to 255 as bytes.
        """
        whole = 255 if probabilities.dtype == np.uint8 else 1.0
        z, *sides = _filled_box(probabilities, whole / 2)
        if not z.stop:
            return cls(name, (z, sides[0], sides[1]), np.zeros((0, 0, 0), np.bool_))
        # contours also ask the neighbours outside, within the slice
        y, x = (
            slice(max(0, side.start - 1), min(length, side.stop + 1))
            for side, length in zip(sides, probabilities.shape[1:], strict=True)
        )
        inside = probabilities[z, y, x]
        voxels, certainty = np.empty(inside.shape, np.bool_), np.empty(inside.shape, np.uint8)
        lead = np.empty(inside.shape[1:], np.float32)
        for index, plane in enumerate(inside):
            np.multiply(plane, 510 / whole, out=lead, casting="unsafe")
            lead -= 255
            np.greater(lead, 0, out=voxels[index])
            np.rint(np.abs(lead, out=lead), out=lead)
            np.clip(lead, 1, 255, out=certainty[index], casting="unsafe")
        return cls(name, (z, y, x), voxels, certainty)

    def with_certainty(self, certainty: NDArray[np.uint8]) -> Self:
        """Return the same region with how sure each voxel is of its side, given for the whole grid (z, y, x)."""
        voxels, (z, *sides) = self.voxels, self.box
        if self.is_empty:
            return self
        # contours also ask the neighbours outside, within the slice
        before = [min(1, side.start) for side in sides]
        after = [min(1, length - side.stop) for side, length in zip(sides, certainty.shape[1:], strict=True)]
        y, x = (slice(side.start - low, side.stop + high) for side, low, high in zip(sides, before, after, strict=True))
        padded = np.pad(voxels, ((0, 0), *zip(before, after, strict=True)))
        return type(self)(self.name, (z, y, x), padded, np.ascontiguousarray(certainty[z, y, x]))

    @property
    def is_empty(self) -> bool:
        """Whether no voxel belongs to the region."""
        return not self.voxels.any()

    def in_grid(self, shape: tuple[int, int, int]) -> NDArray[np.bool_]:
        """Return the mask on the whole grid of `shape` (z, y, x)."""
        whole = np.zeros(shape, dtype=np.bool_)
        whole[self.box] = self.voxels
        return whole

    def moved(self, by: Sequence[int]) -> Self:
        """Return the same voxels with the box moved by so many slices, rows and columns."""
        z, y, x = (slice(side.start + step, side.stop + step) for side, step in zip(self.box, by, strict=True))
        return type(self)(self.name, (z, y, x), self.voxels, self.certainty)

    def volume_cm3(self, geometry: SeriesGeometry) -> float:
        """Return the volume of the region's voxels, each as thick as its slice reaches to its neighbours' halves."""
        counts = np.count_nonzero(self.voxels, axis=(1, 2))
        row_spacing_mm, column_spacing_mm = geometry.pixel_spacing_mm
        thickness_mm = geometry.slice_thickness_mm[self.box[0]]
        return float(counts @ thickness_mm) * row_spacing_mm * column_spacing_mm / 1000.0


def _filled_box(
    values: NDArray[np.bool_] | NDArray[np.floating] | NDArray[np.uint8], above: float = 0
) -> tuple[slice, slice, slice]:
    """Return the smallest box that holds all values above a limit; at the origin and empty when there is none."""
    is_mask = values.dtype == np.bool_
    filled_slices = []
    seen_from_above = np.zeros(values.shape[1:], np.bool_)
    for index, plane in enumerate(values):
        voxels = plane if is_mask else plane > above
        if voxels.any():
            filled_slices.append(index)
            seen_from_above |= voxels
    if not filled_slices:
        return slice(0, 0), slice(0, 0), slice(0, 0)
    rows, columns = np.flatnonzero(seen_from_above.any(axis=1)), np.flatnonzero(seen_from_above.any(axis=0))
    return (
        slice(filled_slices[0], filled_slices[-1] + 1),
        slice(int(rows[0]), int(rows[-1]) + 1),
        slice(int(columns[0]), int(columns[-1]) + 1),
    )
