import tomllib
from pathlib import Path

from appliance.importing.roi_names import MAX_LENGTH, TG263, roi_names

ROOT = Path(__file__).parents[3]


def test_every_name_of_the_table_is_one_that_structure_sets_know() -> None:
    known = tomllib.loads((ROOT / "configs" / "rois.toml").read_text())
    assert {name for name in TG263.values() if name not in known} == set()


def test_classes_of_public_models_get_the_names_of_the_clinic() -> None:
    classes = ["urinary_bladder", "femur_left", "kidney_right", "lung_upper_lobe_left", "spinal_cord", "vertebrae_L1"]
    assert roi_names(classes) == ["Bladder", "Femur_L", "Kidney_R", "Lung_LUL", "SpinalCord", "vertebrae_L1"]


def test_long_names_are_cut_but_keep_their_side_and_stay_different() -> None:
    classes = [
        "gluteus_maximus_left",
        "gluteus_maximus_right",
        "brachiocephalic_vein_left",
        "brachiocephalic_veins_left",
    ]
    names = roi_names(classes)
    assert names[:3] == ["gluteus_maximu_L", "gluteus_maximu_R", "brachiocephali_L"]
    assert len(set(names)) == 4
    assert max(map(len, names)) <= MAX_LENGTH


def test_two_classes_of_one_name_stay_two() -> None:
    assert roi_names(["urinary_bladder", "bladder", "a b", "a_b"]) == ["Bladder", "bladder", "a_b", "a_b_2"]
