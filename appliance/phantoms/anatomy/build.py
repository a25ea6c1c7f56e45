"""One patient, from skin to bone, in the order in which later organs push earlier ones aside."""

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from appliance.phantoms.anatomy.body import draw_body
from appliance.phantoms.anatomy.bones import draw_bone
from appliance.phantoms.anatomy.canvas import Canvas
from appliance.phantoms.anatomy.couch import draw_couch
from appliance.phantoms.anatomy.femurs import draw_femur_shape, draw_femurs
from appliance.phantoms.anatomy.gut import draw_bowel, draw_rectum, draw_rectum_shape
from appliance.phantoms.anatomy.hips import draw_joints, hip_bones, joint_spaces, symphysis
from appliance.phantoms.anatomy.patient import Patient, Sex, draw_patient
from appliance.phantoms.anatomy.pelvic_organs import (
    draw_bladder,
    draw_bladder_shape,
    draw_female_organs,
    draw_male_organs,
)
from appliance.phantoms.anatomy.soft_tissue import draw_great_vessels, draw_muscles, draw_small_vessels
from appliance.phantoms.anatomy.spine import draw_ribs, draw_spine
from appliance.phantoms.anatomy.upper_abdomen import draw_upper_abdomen
from appliance.phantoms.anatomy.warp import warp_maps
from appliance.phantoms.shapes import VOXEL_MM
from appliance.phantoms.tissues import Structure, Tissue


@dataclass(frozen=True, slots=True)
class Anatomy:
    """Tissue and structure maps (z, y, x) on the anatomy grid of `shapes`: 3 mm, origin between the hip joints."""

    tissue: npt.NDArray[np.uint8]
    structure: npt.NDArray[np.uint8]
    sex: Sex


_LEAST_ML = {
    Structure.BLADDER: 20.0,
    Structure.RECTUM: 20.0,
    Structure.PROSTATE: 10.0,
    Structure.FEMUR_LEFT: 60.0,
    Structure.FEMUR_RIGHT: 60.0,
    Structure.HIP: 300.0,
    Structure.SACRUM: 80.0,
    Structure.BOWEL: 300.0,
}
"""Smaller than this, an organ has been lost on the way, cut off by the skin of an unlucky body or by a neighbour."""


def build_complete_anatomy(seed: int, sex: Sex | None = None) -> Anatomy:
    """Build the patient of one seed, drawn again in the few cases (1 in 50) in which an organ was lost."""
    anatomy = build_anatomy(seed, sex)
    for attempt in itertools.count(1):
        if _is_complete(anatomy):
            break
        anatomy = build_anatomy(seed, anatomy.sex, attempt)
    return anatomy


def _is_complete(anatomy: Anatomy) -> bool:
    volumes_ml = np.bincount(anatomy.structure.ravel(), minlength=len(Structure)) * VOXEL_MM**3 / 1000
    absent = set() if anatomy.sex == "male" else {Structure.PROSTATE}
    return all(volumes_ml[structure] >= least for structure, least in _LEAST_ML.items() if structure not in absent)


def build_anatomy(seed: int, sex: Sex | None = None, attempt: int = 0) -> Anatomy:
    """Build the patient of one seed as it falls; the same arguments give the same voxels."""
    rng = np.random.default_rng([seed, 1, attempt] if attempt else [seed, 1])
    patient = draw_patient(rng, sex)
    canvas = draw_body(patient, rng)
    draw_muscles(canvas, patient, rng)
    draw_great_vessels(canvas, patient, rng)
    draw_upper_abdomen(canvas, patient, rng)
    _draw_pelvis_and_gut(canvas, patient, rng)
    _draw_skeleton(canvas, patient, rng)
    draw_couch(canvas, rng)
    tissue, structure = warp_maps(canvas.tissue, canvas.structure, rng)
    return Anatomy(tissue, structure, patient.sex)


def _draw_pelvis_and_gut(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    bladder = draw_bladder_shape(patient, rng)
    rectum = draw_rectum_shape(canvas, patient, rng)
    if patient.is_male:
        draw_male_organs(canvas, bladder, rectum.mask, rng)
    else:
        draw_female_organs(canvas, bladder, rng)
    draw_bladder(canvas, bladder, rectum.mask, rng)
    draw_small_vessels(canvas, rng)
    draw_rectum(canvas, rectum, rng)
    draw_bowel(canvas, patient, rectum, rng)


def _draw_skeleton(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    joints = draw_joints(patient, rng)
    right, left = (draw_femur_shape(joint, patient, rng) for joint in joints)
    hips = hip_bones(joints, patient, rng) & ~right.mask & ~left.mask
    draw_ribs(canvas, rng)
    canvas.fill(joint_spaces(joints) & canvas.inner, Tissue.CARTILAGE, Structure.BODY)
    canvas.paint(symphysis(rng), Tissue.DISC, canvas.inner, Structure.BODY)
    draw_spine(canvas, patient, hips, rng)
    draw_bone(canvas, hips, (Tissue.HIP_CORTEX, Tissue.HIP_MARROW), Structure.HIP)
    draw_femurs(canvas, (right, left), rng)
