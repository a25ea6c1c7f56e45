"""What a model says about itself: `manifest.json` as typed, checked, frozen values.

An unknown key is an error, so that a rule which this version does not know is never silently left out.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from appliance.dicom.roi import RoiName

Positive = Annotated[float, Field(gt=0)]
TileSide = Annotated[int, Field(ge=1, le=512)]
Name = Annotated[str, Field(min_length=1, max_length=64)]

MAX_CLASSES = 255
"""Class numbers are kept as one byte for each CT voxel."""


class _Part(BaseModel):
    """A part of the manifest: frozen, complete, finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Channel(_Part):
    """One input channel: clip((HU - offset_hu) / scale_hu, *clip)."""

    offset_hu: float
    scale_hu: Positive
    clip: tuple[float, float]

    @model_validator(mode="after")
    def _clip_is_a_range(self) -> Self:
        if not self.clip[0] < self.clip[1]:
            raise ValueError("clip must be [low, high] with low < high")
        return self


class NetworkInput(_Part):
    """The grid and the channels that the network was trained on. Axes (z, y, x), LPS."""

    spacing_mm: tuple[Positive, Positive, Positive]
    tile: tuple[TileSide, TileSide, TileSide]
    overlap: float = Field(ge=0, le=0.75)
    orientation: Literal["LPS"]
    channels: tuple[Channel, ...] = Field(min_length=1)


class Fold(_Part):
    """One network file of the ensemble and its digest; the name holds no folder."""

    file: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*\.onnx$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class RoiRule(_Part):
    """How one ROI is made from the decided classes.

    Attributes:
        name: TG-263 name, at most 16 characters.
        classes: their union is the ROI.
        side: keep the patient's left or right of the midline only.
        midline_from: classes or ROIs whose centre of mass marks the midline.
        keep: which connected parts stay: "all", "largest", or "min_fraction:0.1" (parts of at least a tenth
            of the largest). Voxels are connected by faces.
        fill_holes: "axial" fills what is enclosed within its slice.
    """

    name: RoiName
    classes: tuple[Name, ...] = Field(min_length=1)
    side: Literal["left", "right"] | None = None
    midline_from: tuple[Name, ...] = ()
    keep: str = Field(default="all", pattern=r"^(all|largest|min_fraction:0?\.\d+)$")
    fill_holes: Literal["none", "axial"] = "none"

    @model_validator(mode="after")
    def _side_and_midline_go_together(self) -> Self:
        if (self.side is None) != (not self.midline_from):
            raise ValueError("side and midline_from go together")
        return self


class Limits(_Part):
    """Scans that the model was made for: slice distance [low, high], and least extent (z, y, x) in mm."""

    slice_spacing_mm: tuple[Positive, Positive]
    min_extent_mm: tuple[float, float, float]


class Manifest(_Part):
    """A model package's own description."""

    format: Literal[1]
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    title: str
    intended_use: str
    training: str
    licence: str
    input: NetworkInput
    classes: tuple[Name, ...] = Field(min_length=2, max_length=MAX_CLASSES)
    ensemble: Literal["mean_softmax"]
    folds: tuple[Fold, ...] = Field(min_length=1)
    rois: tuple[RoiRule, ...] = Field(min_length=1)
    limits: Limits

    @model_validator(mode="after")
    def _names_are_known_and_unique(self) -> Self:
        if self.classes[0] != "background":
            raise ValueError("the first class must be background")
        rois, files = [roi.name for roi in self.rois], [fold.file for fold in self.folds]
        for what, names in (("class", list(self.classes)), ("ROI", rois), ("fold file", files)):
            if len(set(names)) < len(names):
                raise ValueError(f"a {what} is named twice")
        known = set(self.classes[1:])
        for roi in self.rois:
            unknown = (set(roi.classes) - known) | (set(roi.midline_from) - known - set(rois))
            if unknown:
                raise ValueError(f"ROI {roi.name} names unknown classes: {', '.join(sorted(unknown))}")
        return self

    def midline_classes(self, roi: RoiRule) -> tuple[str, ...]:
        """The classes that mark the midline for a sided ROI; a ROI named there stands for its classes."""
        classes_of = {other.name: other.classes for other in self.rois}
        return tuple(
            name for mark in roi.midline_from for name in ((mark,) if mark in self.classes else classes_of[mark])
        )
