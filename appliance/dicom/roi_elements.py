"""The three items that make one ROI of a structure set: what it is, where it is, what it stands for.

A reader joins them by ROI Number (PS3.3 §C.8.8.5, §C.8.8.6, §C.8.8.8), so all three are always written.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from appliance.dicom.contours import Contour, RoiContours
from appliance.dicom.ct_series import CtSeries
from appliance.dicom.geometry import SeriesGeometry
from appliance.dicom.implicit_vr import Value, data_set
from appliance.dicom.planning_system import PlanningSystem
from appliance.dicom.roi import RoiCode, RoiTemplate

CLOSED_PLANAR = "CLOSED_PLANAR"
CLOSED_PLANAR_XOR = "CLOSEDPLANAR_XOR"
COARSE_DECIMALS = 2  #: in the plane of axial images; planning systems choke on long decimal strings
FINE_DECIMALS = 3  #: where pixels are small, or where rounding also moves points off their plane
COARSE_FROM_MM = 0.7  #: pixels of at least this size keep their voxels with two decimals (0.007 mm)
_POSITION_DECIMALS = 6  #: as exact as scanners write, and at most 13 characters
_VOLUME_DECIMALS = 3

LONGEST_TEXT = 1024  #: of value representation ST

ARTIFICIAL_INTELLIGENCE = ("123110", "DCM", "Artificial Intelligence")  #: PS3.16 CID 7162
MORPHOLOGICAL_OPERATIONS = ("123104", "DCM", "Morphological Operations")  #: PS3.16 CID 7162
SIDES = {"left": ("7771000", "SCT", "Left"), "right": ("24028007", "SCT", "Right")}  #: PS3.16 CID 244


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """What drew a region (PS3.3 §10.16)."""

    name: str
    version: str
    source: str
    parameters: str
    family: tuple[str, str, str] = ARTIFICIAL_INTELLIGENCE


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnRoi:
    """One region as it goes into a structure set.

    Attributes:
        template: how it is written.
        contours: where it is; without contours it is declared and left empty.
        volume_cm3: of its voxels; not written where it is None.
        made_from: names of the regions that it was derived from, as they are written; empty for the model's own.
        recipe: how it was derived, in words; empty for the model's own.
        fold_dice: how far the networks of the model agree on it, 0 to 1; None where that is not known.
        flags: one sentence for each reason to look at it carefully.
    """

    template: RoiTemplate
    contours: RoiContours
    volume_cm3: float | None = None
    made_from: tuple[str, ...] = ()
    recipe: str = ""
    fold_dice: float | None = None
    flags: tuple[str, ...] = ()

    @property
    def look_carefully(self) -> str:
        """Why it needs a careful look, in words; empty where it does not."""
        return f"LOOK CAREFULLY: {', '.join(self.flags)}" if self.flags else ""

    @property
    def description(self) -> str:
        """What it is and how far it can be trusted, the gravest first (value representation ST, 1024 characters)."""
        agreement = "" if self.fold_dice is None else f"the networks agree by {self.fold_dice:.2f}"
        said = ("Automatic draft, not reviewed", self.look_carefully, agreement, self.recipe)
        return "; ".join(part for part in said if part)[:LONGEST_TEXT]


def code(value: str, scheme: str, meaning: str, **more: Value) -> bytes:
    """Encode a coded concept (PS3.3 §8.8)."""
    return data_set(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning, **more)


def decimal(value: float, decimals: int = _POSITION_DECIMALS) -> str:
    """Write a number as a decimal string of at most 16 characters, without an exponent (PS3.5 §6.2)."""
    text = f"{round(value, decimals) + 0.0:.{decimals}f}"
    return text.rstrip("0").rstrip(".")


def structure_set_roi(
    roi: DrawnRoi, frame_of_reference_uid: str, algorithm: Algorithm, creator: bytes, drawn_at: str
) -> bytes:
    """Encode an item of the Structure Set ROI Sequence.

    Args:
        roi: the region.
        frame_of_reference_uid: of its coordinates.
        algorithm: what drew it.
        creator: the device, as an encoded item of the ROI Creator Sequence.
        drawn_at: date and time (value representation DT); not written where it is empty.
    """
    elements: dict[str, Value] = {
        "ROINumber": roi.template.number,
        "ReferencedFrameOfReferenceUID": frame_of_reference_uid,
        "ROIName": roi.template.name,
        "ROIDescription": roi.description,
        "ROIGenerationAlgorithm": "AUTOMATIC",
        "ROIGenerationDescription": f"{algorithm.name} {algorithm.version}"[:64],
        "ROIDerivationAlgorithmIdentificationSequence": [
            data_set(
                AlgorithmFamilyCodeSequence=[code(*algorithm.family)],
                AlgorithmName=algorithm.name,
                AlgorithmVersion=algorithm.version,
                AlgorithmSource=algorithm.source,
                AlgorithmParameters=algorithm.parameters,
            )
        ],
        "ROICreatorSequence": [creator],
    }
    if drawn_at:
        elements["ROIDateTime"] = drawn_at
    if roi.volume_cm3 is not None:
        elements["ROIVolume"] = decimal(roi.volume_cm3, _VOLUME_DECIMALS)
    return data_set(**elements)


def roi_contour(roi: DrawnRoi, series: CtSeries, form: PlanningSystem, grid: Mapping[str, Value]) -> bytes:
    """Encode an item of the ROI Contour Sequence; without contours it has no Contour Sequence (which is Type 3)."""
    elements: dict[str, Value] = {
        "ReferencedROINumber": roi.template.number,
        "ROIDisplayColor": roi.template.colour,
        **grid,
    }
    if roi.contours.contours:
        geometric_type = CLOSED_PLANAR_XOR if form.holes == "xor" else CLOSED_PLANAR
        elements["ContourSequence"] = _contour_items(roi.contours, series, geometric_type)
    return data_set(**elements)


def roi_observation(roi: DrawnRoi, numbers: Mapping[str, int], form: PlanningSystem) -> bytes:
    """Encode an item of the RT ROI Observations Sequence; `numbers` are those of all regions, by name."""
    template = roi.template
    elements: dict[str, Value] = {
        "ObservationNumber": template.number,
        "ReferencedROINumber": template.number,
        "ROIObservationLabel": template.name[:16],
        "RTROIInterpretedType": template.interpreted_type,
        "ROIInterpreter": "",
    }
    if roi.flags:
        elements["ROIObservationDescription"] = roi.look_carefully[:LONGEST_TEXT]
    meaning = {"SCT": template.code, "FMA": template.fma, "none": None}[form.codes]
    if meaning is not None:
        elements["RTROIIdentificationCodeSequence"] = [_identification(meaning, template.side)]
    related = [numbers[name] for name in roi.made_from if name in numbers]
    if related:
        elements["RTRelatedROISequence"] = [data_set(ReferencedROINumber=number) for number in related]
    return data_set(**elements)


def source_grid(series: CtSeries) -> dict[str, Value]:
    """Say which grid the contours were drawn on, so that a reader can fill them to the very same voxels.

    The grid of a stack that is not regular (uneven gaps, tilted gantry) has no description; its series is named alone.
    """
    geometry = series.geometry
    source: dict[str, Value] = {"SourceSeriesSequence": [data_set(SeriesInstanceUID=series.series_instance_uid)]}
    if not geometry.is_regular:
        return source
    directions = (*geometry.row_direction, *geometry.column_direction)
    source["SourcePixelPlanesCharacteristicsSequence"] = [
        data_set(
            PixelSpacing=[decimal(spacing_mm) for spacing_mm in geometry.pixel_spacing_mm],
            SpacingBetweenSlices=decimal(geometry.slice_gap_mm),
            ImageOrientationPatient=[decimal(cosine, 12) for cosine in directions],
            ImagePositionPatient=[decimal(along_mm) for along_mm in geometry.positions_mm[0].tolist()],
            NumberOfFrames=len(geometry.positions_mm),
            Rows=geometry.rows,
            Columns=geometry.columns,
        )
    ]
    return source


def image_reference(sop_class_uid: str, sop_instance_uid: str) -> bytes:
    """Encode a reference to one image."""
    return data_set(ReferencedSOPClassUID=sop_class_uid, ReferencedSOPInstanceUID=sop_instance_uid)


def _identification(meaning: RoiCode, side: str | None) -> bytes:
    """Encode what a region is, and on which side; terminologies that name the side themselves need no modifier."""
    if side is None or meaning.scheme != "SCT":
        return code(meaning.value, meaning.scheme, meaning.meaning)
    modifier: Value = [code(*SIDES[side])]
    return code(meaning.value, meaning.scheme, meaning.meaning, SegmentedPropertyTypeModifierCodeSequence=modifier)


def _contour_items(contours: RoiContours, series: CtSeries, geometric_type: str) -> list[bytes]:
    references = [image_reference(one.sop_class_uid, one.sop_instance_uid) for one in series.slices]
    return [
        data_set(
            ContourImageSequence=[references[contour.slice_index]],
            ContourGeometricType=geometric_type,
            NumberOfContourPoints=len(contour.points_mm),
            ContourNumber=number,
            ContourData=_contour_data(contour, series.geometry),
        )
        for number, contour in enumerate(contours.contours, start=1)
    ]


def _contour_data(contour: Contour, geometry: SeriesGeometry) -> bytes:
    """Write the coordinates of all points; on axial planes z is the position of the slice, exactly."""
    if geometry.row_direction[2] == geometry.column_direction[2] == 0.0:
        decimals = COARSE_DECIMALS if min(geometry.pixel_spacing_mm) >= COARSE_FROM_MM else FINE_DECIMALS
        z = decimal(float(geometry.positions_mm[contour.slice_index, 2]))
        point = f"%.{decimals}f\\%.{decimals}f\\{z}\\"
        numbers = np.round(contour.points_mm[:, :2], decimals)
    else:
        point = f"%.{FINE_DECIMALS}f\\" * 3
        numbers = np.round(contour.points_mm, FINE_DECIMALS)
    numbers += 0.0  # no "-0.00"
    text = (point * len(numbers) % tuple(numbers.ravel().tolist()))[:-1]
    return text.encode("ascii") + b" " * (len(text) % 2)
