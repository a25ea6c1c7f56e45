"""A structure set under examination: what the file says, joined and measured as far as that can be done."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from appliance.dicom.contour_points import ContourPoints, read_points
from appliance.dicom.ct_series import CtSeries
from appliance.dicom.findings import Finding, Severity
from appliance.dicom.planning_system import PlanningSystem
from appliance.dicom.rasterising import fill
from appliance.dicom.roi import RoiMask, RoiTemplate
from appliance.dicom.structure_file import WrittenContour, WrittenObservation, WrittenRoi, WrittenStructureSet
from appliance.dicom.structure_reader import nearest_slices, plane_tolerances_mm, unique_names


@dataclass(frozen=True, slots=True, eq=False)
class ExaminedRegion:
    """One region, whatever is wrong with it.

    Attributes:
        name: unique within the structure set.
        kind: RT ROI Interpreted Type, as the file says it or else as `rois.toml` knows it by the name.
        all_contours: every item of its Contour Sequence.
        closed: those of a type that bounds a volume.
        points: their points.
        slices: the slice that each of them lies nearest to; empty without images.
        far_mm: how far each lies from the plane of that slice; empty without images.
        usable: which of them can be filled, shape (closed contours,).
    """

    name: str
    kind: str
    roi: WrittenRoi
    observation: WrittenObservation | None
    all_contours: tuple[WrittenContour, ...]
    closed: tuple[WrittenContour, ...]
    points: ContourPoints
    slices: NDArray[np.intp]
    far_mm: NDArray[np.float64]
    usable: NDArray[np.bool_]

    def place(self, index: int) -> str:
        """Say where a closed contour lies."""
        if not self.points.lengths[index]:
            return f"contour {index + 1}"
        return f"z = {self.points.points_mm[self.points.starts[index], 2]:.1f} mm"


@dataclass
class Examination:
    """A structure set with what it is compared with.

    Attributes:
        content: the file.
        written: what it says.
        series: the images; None when they are not at hand.
        rois: the structures that this site knows, by name.
        own: whether this appliance has just made it, so that the strictest form of each rule holds.
        planning_system: the form in which it is to be.
    """

    content: bytes
    written: WrittenStructureSet
    series: CtSeries | None
    rois: Mapping[str, RoiTemplate]
    own: bool = False
    planning_system: PlanningSystem = field(default_factory=PlanningSystem)
    _masks: dict[str, RoiMask] = field(default_factory=dict)
    _volumes_cm3: dict[str, float] = field(default_factory=dict)

    @cached_property
    def regions(self) -> tuple[ExaminedRegion, ...]:
        """Every item of the Structure Set ROI Sequence, with what else is said of its number."""
        contours = {one.number: one.contours for one in reversed(self.written.roi_contours)}
        observations = {one.number: one for one in reversed(self.written.observations)}
        return tuple(
            self._region(name, roi, observations.get(roi.number), contours.get(roi.number, ()))
            for name, roi in zip(unique_names(self.written.rois), self.written.rois, strict=True)
        )

    def mask(self, region: ExaminedRegion, series: CtSeries) -> RoiMask:
        """Fill the contours of a region that can be filled; of a result of our own no mask is kept, to spare memory."""
        if region.name in self._masks:
            return self._masks[region.name]
        chosen = region.points.only(region.usable)
        slices = region.slices[region.usable]
        mask = fill(region.name, chosen.points_mm, chosen.lengths, slices, series.geometry)
        self._volumes_cm3[region.name] = mask.volume_cm3(series.geometry)
        if not self.own:
            self._masks[region.name] = mask
        return mask

    def keep(self, mask: RoiMask) -> None:
        """Take a mask, which somebody else holds anyway, for that of the region of its name."""
        self._masks[mask.name] = mask

    def volume_cm3(self, region: ExaminedRegion, series: CtSeries) -> float:
        """The volume of the voxels of a region."""
        if region.name not in self._volumes_cm3:
            self.mask(region, series)
        return self._volumes_cm3[region.name]

    def graver(self, rule: str, sentence: str, roi: str = "", *, else_: Severity = Severity.WARNING) -> Finding:
        """Return a finding that is an error in a structure set of our own, and less grave in anybody else's."""
        return Finding(Severity.ERROR if self.own else else_, rule, sentence, roi)

    def _region(
        self,
        name: str,
        roi: WrittenRoi,
        observation: WrittenObservation | None,
        contours: tuple[WrittenContour, ...],
    ) -> ExaminedRegion:
        closed = tuple(contour for contour in contours if contour.is_closed)
        points = read_points(closed)
        usable = points.lengths >= 3
        slices, far_mm = np.zeros(0, np.intp), np.zeros(0)
        if self.series is not None:
            slices, far_mm = nearest_slices(points, self.series.geometry)
            usable &= far_mm <= plane_tolerances_mm(self.series.geometry)[slices]
        kind = observation.interpreted_type if observation else ""
        if not kind and name in self.rois:
            kind = self.rois[name].interpreted_type
        return ExaminedRegion(name, kind, roi, observation, contours, closed, points, slices, far_mm, usable)
