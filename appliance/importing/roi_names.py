"""What the classes of public models are called in a structure set: TG-263 names, where `configs/rois.toml` has one.

The keys are the class names of TotalSegmentator, which many other models share. Which number a class has is never
looked up here: that differs between versions, and every model brings its own class map.
"""

import re
from collections.abc import Sequence

MAX_LENGTH = 16
"""What planning systems keep of a name; longer ones are cut."""

_PAIRS = {
    "adrenal_gland": "Glnd_Adrenal",
    "breast": "Breast",
    "clavicle": "Clavicle",
    "clavicula": "Clavicle",
    "common_carotid_artery": "A_Carotid",
    "eye": "Eye",
    "eye_lens": "Lens",
    "femur": "Femur",
    "heart_atrium": "Atrium",
    "heart_ventricle": "Ventricle",
    "humerus": "Humerus",
    "kidney": "Kidney",
    "lung": "Lung",
    "optic_nerve": "OpticNrv",
    "parotid_gland": "Parotid",
    "scapula": "Scapula",
    "submandibular_gland": "Glnd_Submand",
}
_SINGLE = {
    "aorta": "A_Aorta",
    "bladder": "Bladder",
    "brain": "Brain",
    "brainstem": "Brainstem",
    "colon": "Bowel_Large",
    "duodenum": "Duodenum",
    "esophagus": "Esophagus",
    "gallbladder": "Gallbladder",
    "heart": "Heart",
    "inferior_vena_cava": "V_Venacava_I",
    "larynx": "Larynx",
    "liver": "Liver",
    "lung_lower_lobe_left": "Lung_LLL",
    "lung_lower_lobe_right": "Lung_RLL",
    "lung_middle_lobe_right": "Lung_RML",
    "lung_upper_lobe_left": "Lung_LUL",
    "lung_upper_lobe_right": "Lung_RUL",
    "mandible": "Bone_Mandible",
    "oropharynx": "Oropharynx",
    "pancreas": "Pancreas",
    "prostate": "Prostate",
    "pulmonary_artery": "A_Pulmonary",
    "rectum": "Rectum",
    "sacrum": "Sacrum",
    "skull": "Skull",
    "small_bowel": "Bowel_Small",
    "spinal_cord": "SpinalCord",
    "spleen": "Spleen",
    "stomach": "Stomach",
    "superior_vena_cava": "V_Venacava_S",
    "thyroid_gland": "Glnd_Thyroid",
    "tongue": "Tongue",
    "trachea": "Trachea",
    "urinary_bladder": "Bladder",
    "uterus": "Uterus",
}
_SIDES = {"_left": "_L", "_right": "_R"}
TG263 = _SINGLE | {pair + word: name + side for pair, name in _PAIRS.items() for word, side in _SIDES.items()}
"""Class -> primary name."""


def roi_names(classes: Sequence[str]) -> list[str]:
    """One name for each class, all different: from the table, or made of the class's own."""
    names: list[str] = []
    for name in classes:
        known = TG263.get(name.lower())
        wanted = known if known is not None and known not in names else _valid(name)
        number, unique = 1, wanted
        while unique in names:
            number += 1
            unique = f"{wanted[: MAX_LENGTH - len(str(number)) - 1]}_{number}"
        names.append(unique)
    return names


def _valid(name: str) -> str:
    """A name in the characters of TG-263, cut to their length, but never in its side."""
    made = re.sub(r"[^A-Za-z0-9_~^+\-]+", "_", name).strip("_") or "class"
    if len(made) <= MAX_LENGTH:
        return made
    for word, side in _SIDES.items():
        if made.lower().endswith(word):
            return made[: -len(word)][: MAX_LENGTH - len(side)].rstrip("_") + side
    return made[:MAX_LENGTH].rstrip("_")
