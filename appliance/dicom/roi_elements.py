"""The three items that make one ROI of a structure set: what it is, where it is, what it stands for.

A reader joins them by ROI Number (PS3.3 §C.8.8.5, §C.8.8.6, §C.8.8.8), so all three are always written.
"""

from dataclasses import dataclass

import numpy as np

from appliance.dicom.contours import Contour, RoiContours
from appliance.dicom.ct_series import CtSeries
from appliance.dicom.geometry import SeriesGeometry
from appliance.dicom.implicit_vr import Value, data_set
from appliance.dicom.roi import RoiTemplate

CLOSED_PLANAR = "CLOSED_PLANAR"
IN_PLANE_DECIMALS = 2  #: 0.005 mm off at most; planning systems choke on long decimal strings
OBLIQUE_DECIMALS = 3  #: where rounding also moves points off their plane
_POSITION_DECIMALS = 6  #: as exact as scanners write, and at most 13 characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """What drew the regions (PS3.3 §10.16)."""

    name: str
    version: str
    source: str
    parameters: str


def code(value: str, scheme: str, meaning: str) -> bytes:
    """Encode a coded concept (PS3.3 §8.8)."""
    return data_set(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def decimal(value: float) -> str:
    """Write a number as a decimal string of at most 16 characters, without an exponent (PS3.5 §6.2)."""
    text = f"{round(value, _POSITION_DECIMALS) + 0.0:.{_POSITION_DECIMALS}f}"
    return text.rstrip("0").rstrip(".")


def structure_set_roi(template: RoiTemplate, frame_of_reference_uid: str, algorithm: Algorithm) -> bytes:
    """Encode an item of the Structure Set ROI Sequence."""
    return data_set(
        ROINumber=template.number,
        ReferencedFrameOfReferenceUID=frame_of_reference_uid,
        ROIName=template.name,
        ROIDescription="Automatic draft, not reviewed",
        ROIGenerationAlgorithm="AUTOMATIC",
        ROIGenerationDescription=f"{algorithm.name} {algorithm.version}"[:64],
        ROIDerivationAlgorithmIdentificationSequence=[
            data_set(
                AlgorithmFamilyCodeSequence=[code("123110", "DCM", "Artificial Intelligence")],
                AlgorithmName=algorithm.name,
                AlgorithmVersion=algorithm.version,
                AlgorithmSource=algorithm.source,
                AlgorithmParameters=algorithm.parameters,
            )
        ],
    )


def roi_contour(template: RoiTemplate, contours: RoiContours, series: CtSeries) -> bytes:
    """Encode an item of the ROI Contour Sequence; without contours it has no Contour Sequence (which is Type 3)."""
    elements: dict[str, Value] = {
        "ReferencedROINumber": template.number,
        "ROIDisplayColor": template.colour,
    }
    if contours.contours:
        elements["ContourSequence"] = _contour_items(contours, series)
    return data_set(**elements)


def roi_observation(template: RoiTemplate) -> bytes:
    """Encode an item of the RT ROI Observations Sequence."""
    elements: dict[str, Value] = {
        "ObservationNumber": template.number,
        "ReferencedROINumber": template.number,
        "ROIObservationLabel": template.name,
        "RTROIInterpretedType": template.interpreted_type,
        "ROIInterpreter": "",
    }
    if template.code is not None:
        meaning = code(template.code.value, template.code.scheme, template.code.meaning)
        elements["RTROIIdentificationCodeSequence"] = [meaning]
    return data_set(**elements)


def image_reference(sop_class_uid: str, sop_instance_uid: str) -> bytes:
    """Encode a reference to one image."""
    return data_set(ReferencedSOPClassUID=sop_class_uid, ReferencedSOPInstanceUID=sop_instance_uid)


def _contour_items(contours: RoiContours, series: CtSeries) -> list[bytes]:
    references = [image_reference(one.sop_class_uid, one.sop_instance_uid) for one in series.slices]
    return [
        data_set(
            ContourImageSequence=[references[contour.slice_index]],
            ContourGeometricType=CLOSED_PLANAR,
            NumberOfContourPoints=len(contour.points_mm),
            ContourNumber=number,
            ContourData=_contour_data(contour, series.geometry),
        )
        for number, contour in enumerate(contours.contours, start=1)
    ]


def _contour_data(contour: Contour, geometry: SeriesGeometry) -> bytes:
    """Write the coordinates of all points; on axial planes z is the position of the slice, exactly."""
    if geometry.row_direction[2] == geometry.column_direction[2] == 0.0:
        z = decimal(float(geometry.positions_mm[contour.slice_index, 2]))
        point = f"%.{IN_PLANE_DECIMALS}f\\%.{IN_PLANE_DECIMALS}f\\{z}\\"
        numbers = np.round(contour.points_mm[:, :2], IN_PLANE_DECIMALS)
    else:
        point = f"%.{OBLIQUE_DECIMALS}f\\" * 3
        numbers = np.round(contour.points_mm, OBLIQUE_DECIMALS)
    numbers += 0.0  # no "-0.00"
    text = (point * len(numbers) % tuple(numbers.ravel().tolist()))[:-1]
    return text.encode("ascii") + b" " * (len(text) % 2)
