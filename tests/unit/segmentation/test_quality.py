"""Which structures are flagged, and that each sentence says why."""

from typing import Any

import numpy as np
import pytest

from appliance.dicom.ct_volume import CtVolume
from appliance.dicom.scan_description import ScanDescription
from appliance.errors import ModelRefused, Reason
from appliance.segmentation.manifest import QualityLimits
from appliance.segmentation.quality import RoiQuality, beyond_limits, doubt_of, of_the_draft
from appliance.segmentation.segment import Segmented, segment
from tests.support.ct_volumes import PATIENT_POSITIONS, series_grid
from tests.support.model_packages import HU_PER_UNIT
from tests.support.networks import ensemble_of

SHAPE = (8, 20, 24)
INPUT = {
    "spacing_mm": [4.0, 4.0, 4.0],
    "tile": [8, 20, 24],
    "overlap": 0.5,
    "orientation": "LPS",
    "crop": "whole",
    "channels": [{"offset_hu": 0.0, "scale_hu": HU_PER_UNIT, "clip": [-1.0, 2.0]}],
}
HIP, FEMUR = "class_1", "class_2"
FEMURS = [
    {"name": "Bone_Pelvic", "classes": [HIP]},
    {"name": "Femur_L", "classes": [FEMUR], "side": "left", "midline_from": [HIP]},
    {"name": "Femur_R", "classes": [FEMUR], "side": "right", "midline_from": [HIP]},
]
NO_LIMITS = {"slice_spacing_mm": [0.5, 6.0], "min_extent_mm": [0.0, 0.0, 0.0]}


def voxels_of(fold: int) -> Any:
    """Hip in the middle; a femur on either side, on the left one of which the folds differ."""
    labels = np.zeros(SHAPE, np.int64)
    labels[2:6, 5:15, 10:14] = 1
    labels[2:6, 5:15, 2:6] = 2
    labels[2:6, 5 + 3 * fold : 15, 18:22] = 2  # x grows to the patient's left
    return labels


def network(fold: int, sure: float = 8.0) -> Any:
    """Answers the same labels whatever it is shown, in axes z, y, x to head, back and left."""

    def answer(tiles: Any) -> Any:
        one_hot = voxels_of(fold)[None] == np.arange(3)[:, None, None, None]
        return np.repeat(sure * one_hot[None].astype(np.float32), len(tiles), axis=0)

    return answer


def segmented(*folds: Any, rois: Any = FEMURS, position: str = "HFS", hu: int = 40, **manifest: Any) -> Segmented:
    geometry = series_grid(position, SHAPE, (4.0, 4.0, 4.0))
    volume = CtVolume(np.full(SHAPE, hu, np.int16), geometry)
    how = {"classes": 3, "input": INPUT, "rois": rois, "limits": NO_LIMITS, **manifest}
    ensemble = ensemble_of(folds or [network(0), network(1)], **how)
    return segment(ensemble, volume, ScanDescription())


def by_name(found: Segmented) -> dict[str, RoiQuality]:
    return {one.name: one for one in found.quality}


@pytest.mark.parametrize("position", [one for one in PATIENT_POSITIONS if "D" not in one])
def test_one_of_a_pair_has_the_figures_of_its_own_side(position: str) -> None:
    found = by_name(segmented(position=position))
    assert found["Femur_R"].fold_dice == pytest.approx(1.0)
    assert found["Femur_L"].fold_dice == pytest.approx(2 * 7 / (10 + 7))
    assert found["Bone_Pelvic"].fold_dice == pytest.approx(1.0)
    doubts = {name: one.doubt or 0.0 for name, one in found.items()}
    assert doubts["Femur_L"] > 3 * doubts["Femur_R"]


def test_a_model_of_one_network_says_nothing_of_agreement_and_is_judged_by_entropy() -> None:
    sure, unsure = (by_name(segmented(network(0, how))) for how in (8.0, 1.0))
    assert sure["Bone_Pelvic"].fold_dice is None
    assert sure["Bone_Pelvic"].entropy == pytest.approx(0.006, abs=0.003)
    assert (unsure["Bone_Pelvic"].doubt or 0) > (sure["Bone_Pelvic"].doubt or 1)


def test_without_limits_nothing_is_flagged() -> None:
    assert [one.flags for one in segmented().quality] == [(), (), ()]


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ({"min_fold_dice": 0.9}, "the folds agree by 0.82 only, 0.90 or more is usual"),
        ({"max_entropy": 0.001}, "the model wavers (entropy"),
        ({"max_doubt": 0.01}, "less sure of it than usual (doubt 0."),
        ({"volume_cm3": [60.0, 600.0]}, "its volume is 7 cm3, usually 60 to 600 cm3"),
        ({"volume_cm3": [1.0, 5.0]}, "usually 1 to 5 cm3"),
    ],
)
def test_what_is_beyond_a_limit_is_flagged_in_a_sentence_that_says_why(limits: Any, sentence: str) -> None:
    rois = [FEMURS[0], FEMURS[1] | {"quality": limits}, FEMURS[2]]
    found = by_name(segmented(rois=rois))
    (flag,) = found["Femur_L"].flags
    assert sentence in flag
    assert flag.isascii(), "it is written into DICOM"
    assert found["Femur_R"].flags == found["Bone_Pelvic"].flags == ()


def test_a_draft_that_is_unsure_as_a_whole_flags_everything() -> None:
    flags = [one.flags for one in segmented(network(0, 1.0), network(1, 1.0), max_draft_entropy=0.3).quality]
    assert [len(one) for one in flags] == [1, 1, 1]
    assert "on this scan as a whole" in flags[0][0]
    assert list(of_the_draft(0.3, None)) == list(of_the_draft(None, 0.3)) == list(of_the_draft(0.3, 0.3)) == []


@pytest.mark.parametrize(
    ("rule", "flags"),
    [
        ({"must_touch": ["Femur_R"]}, ("it does not touch Femur_R",)),
        ({"must_touch": ["Lost"]}, ("it has to touch Lost, which was not found",)),
        ({"must_not_touch": ["Twin"]}, ("it touches Twin",)),
        ({"must_touch": ["Twin"], "must_not_touch": ["Femur_R", "Lost"]}, ()),
    ],
)
def test_neighbours_that_are_odd_are_flagged(rule: Any, flags: Any) -> None:
    lost = {"name": "Lost", "classes": [FEMUR], "side": "left", "midline_from": ["class_3"]}
    rois = [FEMURS[0] | rule, *FEMURS[1:], {"name": "Twin", "classes": [HIP]}, lost]

    def with_a_class_more(tiles: Any) -> Any:
        return np.pad(network(0)(tiles), ((0, 0), (0, 1), (0, 0), (0, 0), (0, 0)))

    assert by_name(segmented(with_a_class_more, rois=rois, classes=4))["Bone_Pelvic"].flags == flags


def test_doubt_grows_with_every_sign_and_leaves_out_what_is_not_known() -> None:
    plain = doubt_of(0.95, 0.2, 0.2)
    assert plain is not None
    for more in (doubt_of(0.9, 0.2, 0.2), doubt_of(0.95, 0.3, 0.2), doubt_of(0.95, 0.2, 0.3)):
        assert more is not None
        assert more > plain
    assert doubt_of(None, 0.2, 0.2) == pytest.approx(0.2)
    assert doubt_of(None, None, None) is None
    assert doubt_of(1.0, 0.0, 0.0) == pytest.approx(0.001)


def test_what_is_not_known_breaks_no_limit() -> None:
    every = QualityLimits(min_fold_dice=0.9, max_entropy=0.1, max_doubt=0.1, volume_cm3=(1.0, 2.0))
    assert list(beyond_limits(RoiQuality("Bladder", None, None, 1.5), every)) == []


def everything(number: int) -> Any:
    """A network that answers one class wherever it is asked."""

    def answer(tiles: Any) -> Any:
        return np.broadcast_to(np.eye(3, dtype=np.float32)[number][:, None, None, None], (len(tiles), 3, *SHAPE)).copy()

    return answer


@pytest.mark.parametrize("number", [1, 2])
def test_a_model_that_finds_one_organ_everywhere_has_found_none(number: int) -> None:
    with pytest.raises(ModelRefused) as caught:
        segmented(everything(number), hu=-1000, input=INPUT | {"skip_air": False})
    assert caught.value.reason is Reason.MODEL_INVALID
    assert f"answers class_{number} whatever it is shown" in caught.value.sentence


def test_a_model_that_finds_nothing_anywhere_returns_no_structure() -> None:
    assert segmented(everything(0)).masks == ()


def test_warnings_about_the_scan_come_with_the_result() -> None:
    found = segmented(limits=NO_LIMITS | {"patient_positions": ["HFS"]})
    (warning,) = found.warnings
    assert "does not say its patient position" in warning
