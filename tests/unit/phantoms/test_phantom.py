import hashlib
from functools import cache

import numpy as np
import pytest

from appliance.phantoms import Phantom, make_phantom
from appliance.phantoms.anatomy import build_anatomy, build_complete_anatomy
from appliance.phantoms.anatomy.patient import Sex
from appliance.phantoms.tissues import ROI_STRUCTURES, Structure

PATIENTS = ((11, "male"), (12, "female"), (13, "male"))
PLAUSIBLE_ML = {
    "External": (12_000, 45_000),
    "Bladder": (20, 900),
    "Rectum": (15, 220),
    "Prostate": (8, 90),
    "Femur_L": (80, 320),
    "Femur_R": (80, 320),
    "Bone_Pelvic": (350, 1100),
    "Sacrum": (120, 450),
    "Bowel": (300, 4500),
}


@cache
def coarse(seed: int, sex: Sex) -> Phantom:
    return make_phantom(seed, spacing_mm=(5.0, 5.0, 5.0), sex=sex)


def digest(phantom: Phantom) -> str:
    sha = hashlib.sha256(phantom.hu.tobytes())
    for name in sorted(phantom.truth):
        sha.update(name.encode() + phantom.truth[name].tobytes())
    return sha.hexdigest()


def centre_mm(phantom: Phantom, name: str) -> np.ndarray:
    """Centre of mass of an ROI as patient position (x, y, z)."""
    indices = np.argwhere(phantom.truth[name]).mean(0)
    return np.array(phantom.origin_mm) + (indices * phantom.spacing_mm)[::-1]


def test_one_seed_gives_one_phantom_bit_for_bit() -> None:
    first, second = (make_phantom(7, spacing_mm=(8.0, 6.0, 6.0)) for _ in range(2))
    assert digest(first) == digest(second)


def test_another_seed_gives_another_phantom() -> None:
    assert digest(coarse(11, "male")) != digest(coarse(13, "male"))


@pytest.mark.parametrize(("seed", "sex"), PATIENTS)
def test_every_organ_has_a_plausible_volume(seed: int, sex: Sex) -> None:
    phantom = coarse(seed, sex)
    for name, mask in phantom.truth.items():
        low, high = PLAUSIBLE_ML[name]
        assert low < mask.sum() * 0.125 < high, name


@pytest.mark.parametrize(("seed", "sex"), PATIENTS)
def test_every_organ_is_there_and_only_men_have_a_prostate(seed: int, sex: Sex) -> None:
    absent = set() if sex == "male" else {"Prostate"}
    assert set(coarse(seed, sex).truth) == set(ROI_STRUCTURES) - absent


@pytest.mark.parametrize(("seed", "sex"), PATIENTS)
def test_left_is_left_back_is_back_and_head_is_up(seed: int, sex: Sex) -> None:
    phantom = coarse(seed, sex)
    left, right, sacrum = (centre_mm(phantom, name) for name in ("Femur_L", "Femur_R", "Sacrum"))
    bladder = centre_mm(phantom, "Bladder")
    assert left[0] > 40
    assert right[0] < -40
    assert sacrum[1] > bladder[1] + 30
    assert sacrum[2] > max(left[2], right[2])


def test_a_patient_who_lost_an_organ_in_the_drawing_is_drawn_again() -> None:
    as_it_fell, complete = build_anatomy(22), build_complete_anatomy(22)
    assert as_it_fell.sex == complete.sex == "male"
    prostates = [(anatomy.structure == Structure.PROSTATE).sum() * 0.027 for anatomy in (as_it_fell, complete)]
    assert prostates[0] < 10 < prostates[1]


def test_the_prostate_lies_below_the_bladder_and_in_front_of_the_rectum() -> None:
    phantom = coarse(11, "male")
    prostate, bladder, rectum = (centre_mm(phantom, name) for name in ("Prostate", "Bladder", "Rectum"))
    assert prostate[2] < bladder[2]
    assert prostate[1] < rectum[1]


@pytest.mark.parametrize(("seed", "sex"), PATIENTS)
def test_organs_lie_inside_the_body_and_do_not_overlap(seed: int, sex: Sex) -> None:
    phantom = coarse(seed, sex)
    organs = [mask.astype(np.uint8) for name, mask in phantom.truth.items() if name != "External"]
    stacked = np.sum(organs, 0)
    assert not stacked[~phantom.truth["External"]].any()
    # Masks are cut at one half of an interpolated field, so touching organs may share a few border voxels.
    assert (stacked > 1).sum() < 0.01 * (stacked > 0).sum()


def test_bone_is_bright_urine_is_water_and_air_is_empty() -> None:
    phantom = coarse(13, "male")
    mean = {name: phantom.hu[mask].mean() for name, mask in phantom.truth.items()}
    assert mean["Bone_Pelvic"] > 150
    assert -200 < mean["External"] < 150
    assert phantom.hu[0, 0].mean() < -900


def test_a_finer_grid_shows_the_same_organs() -> None:
    fine = make_phantom(11, spacing_mm=(3.0, 2.5, 2.0), sex="male")
    assert fine.hu.shape == (160, 133, 222)
    for name in ("Bladder", "Sacrum", "Bone_Pelvic", "Femur_L"):
        ratio = fine.truth[name].sum() * 15.0 / (coarse(11, "male").truth[name].sum() * 125.0)
        assert 0.93 < ratio < 1.07, name
        np.testing.assert_allclose(centre_mm(fine, name), centre_mm(coarse(11, "male"), name), atol=1.0)


def test_a_wide_field_of_view_is_filled_with_air_around_the_patient() -> None:
    phantom = make_phantom(11, spacing_mm=(6.0, 8.0, 8.0), shape=(90, 70, 70))
    assert phantom.hu.shape == (90, 70, 70)
    assert not phantom.truth["External"][0].any()
    assert not phantom.truth["External"][-1].any()
    assert (phantom.hu[:, 0, 0] == -1024).all()


def test_a_short_scan_is_centred_on_the_pelvis_and_keeps_positions_true() -> None:
    short = make_phantom(11, spacing_mm=(5.0, 5.0, 5.0), shape=(30, 67, 89), sex="male")
    assert {"Bladder", "Sacrum", "Bone_Pelvic"} <= set(short.truth)
    assert short.origin_mm[2] > coarse(11, "male").origin_mm[2]
    np.testing.assert_allclose(centre_mm(short, "Bladder"), centre_mm(coarse(11, "male"), "Bladder"), atol=1.5)


def test_a_scan_above_the_pelvis_has_no_key_for_what_it_does_not_show() -> None:
    thin = make_phantom(11, spacing_mm=(5.0, 10.0, 10.0), shape=(1, 33, 44))
    assert "External" in thin.truth
    assert all(mask.any() for mask in thin.truth.values())
    assert len(thin.truth) < len(ROI_STRUCTURES)
