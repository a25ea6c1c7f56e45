"""Structure sets of small known regions."""

from collections.abc import Mapping
from datetime import datetime
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ImplicitVRLittleEndian, RTStructureSetStorage

from appliance.dicom.contours import Drawing, trace
from appliance.dicom.ct_series import CtSeries
from appliance.dicom.planning_system import PlanningSystem
from appliance.dicom.roi import RoiCode, RoiMask, RoiTemplate
from appliance.dicom.roi_elements import DrawnRoi
from appliance.dicom.structure_set import Provenance, StructureSet, UsedModel, build_structure_set

NESTED = PlanningSystem(holes="nested")
KEYHOLE = PlanningSystem(holes="keyhole")
PROVENANCE = Provenance(
    input_digest="1" * 64,
    models=(UsedModel(name="pelvis-demo", version="1.0.0", digest="2" * 64),),
    protocol="pelvis",
    label="AI_PELVIS_DRAFT",
    appliance_version="0.1.0",
)
OTHER_MODEL = UsedModel(name="thorax", version="2.1.0", digest="3" * 64)


def template(name: str, number: int) -> RoiTemplate:
    """Return a template; a region called External is the external contour."""
    return RoiTemplate(
        name=name,
        number=number,
        colour=(255, 10 * number, 0),
        interpreted_type="EXTERNAL" if name == "External" else "ORGAN",
        code=RoiCode(value="89837001", meaning="Urinary bladder"),
    )


def structure_set_of(
    series: CtSeries,
    regions: Mapping[str, NDArray[np.bool_]],
    *,
    form: PlanningSystem = NESTED,
    provenance: Provenance = PROVENANCE,
    created_at: datetime | None = None,
) -> StructureSet:
    """Trace masks of the whole grid and write them, numbered from 1; one without voxels is declared."""
    drawing = Drawing(keyhole=form.holes == "keyhole")
    rois = []
    for number, (name, voxels) in enumerate(regions.items(), start=1):
        mask = RoiMask.from_volume(name, voxels)
        contours, volume_cm3 = trace(mask, series.geometry, drawing), mask.volume_cm3(series.geometry)
        rois.append(DrawnRoi(template=template(name, number), contours=contours, volume_cm3=volume_cm3))
    return build_structure_set(series, rois, provenance, form, created_at)


def sample_regions(shape: tuple[int, int, int]) -> dict[str, NDArray[np.bool_]]:
    """Return masks that are hard to contour, by name: borders, holes in holes, corners that touch, lone voxels."""
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    middle_y, middle_x = shape[1] // 2, shape[2] // 2
    distance = np.maximum(np.abs(y - middle_y), np.abs(x - middle_x)) + 0 * z
    lone = np.zeros(shape, dtype=np.bool_)
    lone[0, 0, 0] = lone[-1, -1, -1] = lone[1, middle_y, middle_x] = True
    return {
        "External": np.ones(shape, dtype=np.bool_),
        "Rings": distance % 4 < 2,
        "Chess": (y + x + z) % 2 == 0,
        "Lone": lone,
        "Rows": np.broadcast_to(y % 3 == 0, shape).copy(),
        "Noise": np.random.default_rng(0).random(shape) < 0.5,
        "Nothing": np.zeros(shape, dtype=np.bool_),
    }


def small_structure_set(sop_instance_uid: str, study_instance_uid: str = "1.2") -> bytes:
    """Return the smallest file that can be sent as a structure set under this UID, and be found again."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = RTStructureSetStorage
    meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid)
    meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID, dataset.SOPInstanceUID = RTStructureSetStorage, UID(sop_instance_uid)
    dataset.StructureSetLabel, dataset.Modality = "SMALL", "RTSTRUCT"
    dataset.PatientID, dataset.PatientName, dataset.StudyDate = "P1", "Phantom^Small", "20260102"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study_instance_uid, f"{sop_instance_uid}.1"
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
