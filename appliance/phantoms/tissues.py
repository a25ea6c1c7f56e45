"""What a phantom is made of: tissues, the structures that they belong to, and how bright each one is on CT."""

from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

import numpy as np
import numpy.typing as npt


class Tissue(IntEnum):
    """One code for everything that may have its own CT number; every bone has its own cortex and marrow."""

    AIR = 0
    SKIN = 1
    SUBCUTANEOUS_FAT = 2
    VISCERAL_FAT = 3
    MUSCLE = 4
    HIP_CORTEX = 5
    HIP_MARROW = 6
    FEMUR_CORTEX = 7
    FEMUR_CANCELLOUS = 8
    FEMUR_MARROW = 9
    SACRUM_CORTEX = 10
    SACRUM_MARROW = 11
    SPINE_CORTEX = 12
    SPINE_MARROW = 13
    RIB = 14
    DISC = 15
    CARTILAGE = 16
    SPINAL_CANAL = 17
    URINE = 18
    OPACIFIED_URINE = 19
    BLADDER_WALL = 20
    PROSTATE = 21
    SEMINAL_VESICLE = 22
    UTERUS = 23
    VAGINA = 24
    GUT_WALL = 25
    GAS = 26
    STOOL = 27
    GUT_FLUID = 28
    GUT_CONTRAST = 29
    ARTERY = 30
    VEIN = 31
    LIVER = 32
    SPLEEN = 33
    KIDNEY = 34
    RENAL_PELVIS = 35
    STOMACH = 36
    LUNG = 37
    METAL = 38
    COUCH_SHELL = 39
    COUCH_FOAM = 40
    RECTAL_WALL = 41
    FEMORAL_HEAD = 42


class Structure(IntEnum):
    """The truth of a voxel. VERTEBRA and KIDNEY help a network to tell neighbours apart; they are no ROI."""

    OUTSIDE = 0
    BODY = 1
    BLADDER = 2
    RECTUM = 3
    PROSTATE = 4
    FEMUR_LEFT = 5
    FEMUR_RIGHT = 6
    HIP = 7
    SACRUM = 8
    BOWEL = 9
    VERTEBRA = 10
    KIDNEY = 11


ROI_STRUCTURES: dict[str, tuple[Structure, ...]] = {
    "External": tuple(structure for structure in Structure if structure is not Structure.OUTSIDE),
    "Bladder": (Structure.BLADDER,),
    "Rectum": (Structure.RECTUM,),
    "Prostate": (Structure.PROSTATE,),
    "Femur_L": (Structure.FEMUR_LEFT,),
    "Femur_R": (Structure.FEMUR_RIGHT,),
    "Bone_Pelvic": (Structure.HIP,),
    "Sacrum": (Structure.SACRUM,),
    "Bowel": (Structure.BOWEL,),
}
"""TG-263 name of each ROI and the structures whose union it is."""


@dataclass(frozen=True, slots=True)
class TissueTable:
    """CT numbers of one scan, indexed by `Tissue`: the mean and the size (standard deviation) of the texture, in HU."""

    mean_hu: npt.NDArray[np.float32]
    texture_hu: npt.NDArray[np.float32]


def draw_tissue_table(rng: np.random.Generator) -> TissueTable:
    """Draw the CT numbers of one scan: age of the bones, contrast phase, bladder filling, beam quality.

    Ranges are wider than patients are, so that a network learns shape and place before brightness. Each bone gets its
    own density: the sacrum is often much darker than the hip bone of the same patient.
    """
    values = _soft_tissues(rng) | _bones(rng) | _gut_and_vessels(rng)
    mean = np.full(len(Tissue), -1000.0, dtype=np.float32)
    texture = np.zeros(len(Tissue), dtype=np.float32)
    for tissue, (mean_hu, texture_hu) in values.items():
        mean[tissue], texture[tissue] = mean_hu, texture_hu
    return TissueTable(mean, texture)


_Values: TypeAlias = dict[Tissue, tuple[float, float]]


def _soft_tissues(rng: np.random.Generator) -> _Values:
    u = rng.uniform
    muscle, fat = u(5, 70), u(-120, -80)
    urine = u(-10, 25) if rng.random() < 0.92 else u(25, 250)
    return {
        Tissue.SKIN: (u(-60, 50), 10),
        Tissue.SUBCUTANEOUS_FAT: (fat, u(3, 12)),
        Tissue.VISCERAL_FAT: (fat + u(-5, 22), u(4, 18)),
        Tissue.MUSCLE: (muscle, u(5, 20)),
        Tissue.CARTILAGE: (muscle + u(0, 60), 10),
        Tissue.DISC: (u(50, 120), 12),
        Tissue.SPINAL_CANAL: (u(-15, 50), 15),
        Tissue.URINE: (urine, 3),
        Tissue.OPACIFIED_URINE: (u(90, 1200), 15),
        Tissue.BLADDER_WALL: (muscle + u(-15, 20), 6),
        Tissue.PROSTATE: (muscle + u(-15, 30), u(4, 14)),
        Tissue.SEMINAL_VESICLE: (muscle + u(-35, 15), u(4, 14)),
        Tissue.UTERUS: (muscle + u(-10, 55), u(5, 15)),
        Tissue.VAGINA: (muscle + u(-25, 25), u(4, 14)),
        Tissue.GUT_WALL: (muscle + u(-20, 40), u(4, 14)),
        Tissue.RECTAL_WALL: (muscle + u(-20, 30), u(4, 14)),
    }


def _bones(rng: np.random.Generator) -> _Values:
    u = rng.uniform
    cortex, marrow = u(350, 950), u(60, 310)

    def cortical(low: float, high: float) -> tuple[float, float]:
        return cortex * u(low, high), u(40, 200)

    return {
        Tissue.HIP_CORTEX: cortical(0.8, 1.1),
        Tissue.HIP_MARROW: (marrow, u(25, 120)),
        Tissue.FEMUR_CORTEX: cortical(0.9, 1.2),
        Tissue.FEMUR_CANCELLOUS: (marrow * u(0.7, 1.7), u(25, 120)),
        Tissue.FEMUR_MARROW: (u(-90, 60), 25),
        Tissue.FEMORAL_HEAD: (marrow * u(0.9, 2.2), u(25, 100)),
        Tissue.SACRUM_CORTEX: cortical(0.35, 1.0),
        Tissue.SACRUM_MARROW: (marrow * u(0.15, 1.1) - u(0, 60), u(25, 110)),
        Tissue.SPINE_CORTEX: cortical(0.6, 1.1),
        Tissue.SPINE_MARROW: (marrow * u(0.5, 1.3), u(25, 100)),
        Tissue.RIB: cortical(0.4, 0.9),
    }


def _gut_and_vessels(rng: np.random.Generator) -> _Values:
    u = rng.uniform
    enhanced = rng.random() < 0.45
    artery = u(90, 330) if enhanced else u(25, 60)
    vein = artery * u(0.5, 1.0) if enhanced else artery + u(-8, 8)

    def organ(low: float, high: float) -> float:
        return u(low, high) + (u(0, 80) if enhanced else 0.0)

    return {
        Tissue.GAS: (u(-1000, -850), u(0, 40)),
        Tissue.STOOL: (u(-150, 60), u(50, 240)),
        Tissue.GUT_FLUID: (u(0, 60), u(4, 22)),
        Tissue.GUT_CONTRAST: (u(120, 650), u(10, 110)),
        Tissue.ARTERY: (artery, 5),
        Tissue.VEIN: (vein, 6),
        Tissue.LIVER: (organ(30, 75), 8),
        Tissue.SPLEEN: (organ(30, 70), 6),
        Tissue.KIDNEY: (organ(15, 60), 14),
        Tissue.RENAL_PELVIS: (u(-90, 20) if rng.random() < 0.7 else u(100, 900), 15),
        Tissue.STOMACH: (u(-20, 90), 22),
        Tissue.LUNG: (u(-900, -650), 60),
        Tissue.METAL: (u(1800, 4000), 100),
        Tissue.COUCH_SHELL: (u(-600, 200), 20),
        Tissue.COUCH_FOAM: (u(-1000, -860), 10),
    }
