"""What a model says about itself: `manifest.json` as typed, checked, frozen values.

An unknown key is an error, so that a rule which this version does not know is never silently left out. Whatever
changes the masks stands here and not in the box's settings: a model runs with what it was validated with.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from appliance.dicom.roi import RoiName

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
TileSide = Annotated[int, Field(ge=1, le=512)]
Name = Annotated[str, Field(min_length=1, max_length=64)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Range = tuple[float, float]
"""Least and most."""

MAX_CLASSES = 255
"""Class numbers are kept as one byte for each CT voxel."""


class _Part(BaseModel):
    """A part of the manifest: frozen, complete, finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Channel(_Part):
    """One input channel: clip((HU - offset_hu) / scale_hu, *clip)."""

    offset_hu: float
    scale_hu: Positive
    clip: Range

    @model_validator(mode="after")
    def _clip_is_a_range(self) -> Self:
        if not self.clip[0] < self.clip[1]:
            raise ValueError("clip must be [low, high] with low < high")
        return self


class NetworkInput(_Part):
    """The grid and the channels that the network was trained on, and how tiles are laid over a scan.

    Attributes:
        spacing_mm: of the working grid, (z, y, x).
        tile: voxels of one network input, (z, y, x).
        overlap: least share of a tile's side that neighbours have in common.
        orientation: where x, y and z grow to, as three letters: L or R, P or A, S or I.
        channels: what is made of the HU.
        crop: "body" asks for the box around the body alone, "whole" for the whole scan.
        skip_air: take tiles without tissue for background, without asking.
        resampling: "area" averages over what a working voxel covers and keeps the spacing exactly; "cubic" is
            nnU-Net's: channels first, then splines of order 3 on a grid that fills the scan exactly.
        padding: what lies beyond the scan: air, or zeros after normalisation (nnU-Net's).
        mirror: axes along which tiles are also asked mirrored; the logits are averaged.
    """

    spacing_mm: tuple[Positive, Positive, Positive]
    tile: tuple[TileSide, TileSide, TileSide]
    overlap: float = Field(ge=0, le=0.75)
    orientation: str = Field(pattern=r"^[LR][PA][SI]$")
    channels: tuple[Channel, ...] = Field(min_length=1)
    crop: Literal["body", "whole"] = "body"
    skip_air: bool = True
    resampling: Literal["area", "cubic"] = "area"
    padding: Literal["air", "zero"] = "air"
    mirror: tuple[Literal["z", "y", "x"], ...] = ()

    @model_validator(mode="after")
    def _splines_fill_the_scan(self) -> Self:
        if self.resampling == "cubic" and (self.crop != "whole" or self.skip_air):
            raise ValueError('"cubic" needs crop "whole" and skip_air false, as nnU-Net has them')
        return self


class NetworkDefinition(_Part):
    """Which network the tensors of the folds belong to: a name that `models.build` knows, and its arguments."""

    name: Name
    arguments: dict[str, Any] = {}


class Fold(_Part):
    """One network of the ensemble and the digests of its files; the names hold no folder.

    Attributes:
        file: the network as ONNX, which every installation can run.
        tensors: the same weights as safetensors, which the manifest's `network` takes; for torch.
    """

    file: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*\.onnx$")
    sha256: Sha256
    tensors: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*\.safetensors$")
    tensors_sha256: Sha256 | None = None

    @model_validator(mode="after")
    def _tensors_have_a_digest(self) -> Self:
        if (self.tensors is None) != (self.tensors_sha256 is None):
            raise ValueError("tensors and tensors_sha256 go together")
        return self


class QualityLimits(_Part):
    """From where on a structure needs a careful look; calibrated on held-out cases.

    Attributes:
        min_fold_dice: the folds' mean pairwise Dice below which it is flagged.
        max_entropy: mean entropy (nats) of its voxels above which it is flagged.
        max_doubt: doubt (`quality.py`) above which it is flagged.
        volume_cm3: volumes that are usual.
    """

    min_fold_dice: Share | None = None
    max_entropy: Positive | None = None
    max_doubt: Positive | None = None
    volume_cm3: Range | None = None


class RoiRule(_Part):
    """How one ROI is made from the decided classes.

    Attributes:
        name: TG-263 name, at most 16 characters.
        classes: their union is the ROI.
        side: keep the patient's left or right of the midline only.
        midline_from: classes or ROIs whose centre of mass marks the midline.
        keep: which connected parts stay: "all", "largest", "min_fraction:0.1" (parts of at least a tenth of the
            largest) or "min_share:0.1" (of at least a tenth of all, and the largest; InnerEye's threshold). Voxels are
            connected by faces.
        fill_holes: "axial" fills what is enclosed within its slice, "all" what is enclosed in space.
        smooth_mm: width (standard deviation) of a Gaussian over the decided region; 0 leaves it.
        must_touch: ROIs of which it has to touch each; flagged where it does not.
        must_not_touch: ROIs that it may not touch; flagged where it does.
        quality: from where on it is flagged.
    """

    name: RoiName
    classes: tuple[Name, ...] = Field(min_length=1)
    side: Literal["left", "right"] | None = None
    midline_from: tuple[Name, ...] = ()
    keep: str = Field(default="all", pattern=r"^(all|largest|min_(fraction|share):0?\.\d+)$")
    fill_holes: Literal["none", "axial", "all"] = "none"
    smooth_mm: float = Field(default=0.0, ge=0, le=10)
    must_touch: tuple[RoiName, ...] = ()
    must_not_touch: tuple[RoiName, ...] = ()
    quality: QualityLimits = QualityLimits()

    @model_validator(mode="after")
    def _side_and_midline_go_together(self) -> Self:
        if (self.side is None) != (not self.midline_from):
            raise ValueError("side and midline_from go together")
        return self


class SliceExclusion(_Part):
    """Two ROIs that never share an axial slice (InnerEye's `slice_exclusion_rules`).

    Attributes:
        higher: the one nearer to the head.
        lower: the one nearer to the feet.
        higher_dominates: whether a slice in which both were found belongs to the higher one.
    """

    higher: RoiName
    lower: RoiName
    higher_dominates: bool


class SummedProbability(_Part):
    """Two classes that together outweigh a third one (InnerEye's `summed_probability_rules`).

    A voxel that `external` won goes to the likelier of `first` and `second` where their probabilities together
    exceed its own.
    """

    first: Name
    second: Name
    external: Name


class HuPercentile(_Part):
    """A percentile of the HU within the body, and between what it lies in scans that the model was made for."""

    percentile: float = Field(ge=0, le=100)
    hu: Range


class Limits(_Part):
    """Scans that the model was made for.

    Attributes:
        slice_spacing_mm: distances between slices.
        min_extent_mm: least extent (z, y, x).
        pixel_spacing_mm: distances between pixels, along rows and columns.
        kernels: Convolution Kernel, with wildcards.
        body_parts: Body Part Examined, with wildcards.
        patient_positions: Patient Position, such as HFS.
        hu_percentiles: what the HU histogram of the body may look like.
        warn: names of the limits that only warn; all others refuse.
    """

    slice_spacing_mm: tuple[Positive, Positive]
    min_extent_mm: tuple[float, float, float]
    pixel_spacing_mm: tuple[Positive, Positive] | None = None
    kernels: tuple[str, ...] = ()
    body_parts: tuple[str, ...] = ()
    patient_positions: tuple[str, ...] = ()
    hu_percentiles: tuple[HuPercentile, ...] = ()
    warn: tuple[
        Literal[
            "slice_spacing_mm",
            "min_extent_mm",
            "pixel_spacing_mm",
            "kernels",
            "body_parts",
            "patient_positions",
            "hu_percentiles",
        ],
        ...,
    ] = ("kernels", "body_parts", "patient_positions", "hu_percentiles")


class Manifest(_Part):
    """A model package's own description.

    Attributes:
        ensemble: what the folds' answers are averaged as: "mean_softmax", "mean_logits" (nnU-Net's), or
            "majority" of their decisions.
        members: what the ensemble's networks differ in; for people.
        early_exit: from which share of equal decisions of the first two folds on a tile's other folds are not
            asked; None asks all.
        accumulate: the precision in which tiles are added up; "float16" halves the memory of many classes.
        precisions: what the networks may compute in besides float32, where the device is faster in it.
        source: where an imported model came from, in words; None for our own.
        max_draft_entropy: mean entropy (nats) of all ROIs above which each of them is flagged; it is the scan, then.
    """

    format: Literal[1]
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    title: str
    intended_use: str
    training: str
    licence: str
    source: str | None = None
    input: NetworkInput
    classes: tuple[Name, ...] = Field(min_length=2, max_length=MAX_CLASSES)
    network: NetworkDefinition | None = None
    ensemble: Literal["mean_softmax", "mean_logits", "majority"]
    members: Literal["folds", "seeds", "checkpoints"] = "folds"
    early_exit: float | None = Field(default=None, gt=0.5, le=1)
    accumulate: Literal["float32", "float16"] = "float32"
    precisions: tuple[Literal["float16", "bfloat16"], ...] = ()
    folds: tuple[Fold, ...] = Field(min_length=1)
    summed_probabilities: tuple[SummedProbability, ...] = ()
    rois: tuple[RoiRule, ...] = Field(min_length=1)
    slice_exclusions: tuple[SliceExclusion, ...] = ()
    max_draft_entropy: Positive | None = None
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

    @model_validator(mode="after")
    def _rules_name_what_there_is(self) -> Self:
        rois, classes = {roi.name for roi in self.rois}, set(self.classes)
        for rule in self.summed_probabilities:
            if unknown := {rule.first, rule.second, rule.external} - classes:
                raise ValueError(f"summed_probabilities names unknown classes: {', '.join(sorted(unknown))}")
        named = [{rule.higher, rule.lower} for rule in self.slice_exclusions]
        named += [{*roi.must_touch, *roi.must_not_touch} for roi in self.rois]
        if unknown := {name for names in named for name in names} - rois:
            raise ValueError(f"a rule names unknown ROIs: {', '.join(sorted(unknown))}")
        if self.network is None and any(fold.tensors for fold in self.folds):
            raise ValueError("tensors need a network that takes them")
        return self

    @property
    def roi_names(self) -> tuple[str, ...]:
        """The structures that the model draws."""
        return tuple(roi.name for roi in self.rois)

    def numbers(self, classes: tuple[str, ...]) -> tuple[int, ...]:
        """The numbers of some classes."""
        return tuple(self.classes.index(name) for name in classes)

    def midline_classes(self, roi: RoiRule) -> tuple[str, ...]:
        """The classes that mark the midline for a sided ROI; a ROI named there stands for its classes."""
        classes_of = {other.name: other.classes for other in self.rois}
        return tuple(
            name for mark in roi.midline_from for name in ((mark,) if mark in self.classes else classes_of[mark])
        )
