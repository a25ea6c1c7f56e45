"""Regions of interest: what one is called, and which voxels it holds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from appliance.dicom.geometry import SeriesGeometry

#: 16 characters is what planning systems keep of a name; TG-263's primary names fit
RoiName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_~^+\-]{1,16}$")]
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
        name: TG-263 primary name, at most 16 characters.
        number: ROI number, the same in every result.
        colour: red, green and blue, 0-255.
        interpreted_type: what the planning system shall take it for.
        code: what it is in a terminology, where one is known.
        sex: the Patient's Sex that alone has it; it is not drawn in patients known to be of the other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: RoiName
    number: Annotated[int, Field(ge=1, le=9999)]
    colour: tuple[Intensity, Intensity, Intensity]
    interpreted_type: InterpretedType = "ORGAN"
    code: RoiCode | None = None
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
    """

    name: str
    box: tuple[slice, slice, slice]
    voxels: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if tuple(side.stop - side.start for side in self.box) != self.voxels.shape:
            raise ValueError(f"box {self.box} does not fit voxels of shape {self.voxels.shape}")

    @classmethod
    def from_volume(cls, name: str, voxels: NDArray[np.bool_]) -> Self:
        """Crop a mask of the whole grid to the box that holds its True voxels."""
        sides = []
        for axis in range(3):
            others = tuple(other for other in range(3) if other != axis)
            filled = np.flatnonzero(voxels.any(axis=others))
            sides.append(slice(int(filled[0]), int(filled[-1]) + 1) if filled.size else slice(0, 0))
        box = (sides[0], sides[1], sides[2])
        return cls(name, box, np.ascontiguousarray(voxels[box]))

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
        return type(self)(self.name, (z, y, x), self.voxels)

    def volume_cm3(self, geometry: SeriesGeometry) -> float:
        """Return the volume of the region's voxels."""
        return float(np.count_nonzero(self.voxels)) * geometry.voxel_volume_mm3 / 1000.0
