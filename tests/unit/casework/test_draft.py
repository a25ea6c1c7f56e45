"""What a protocol asks for is made from what the model found, and nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appliance.casework.draft import Draft, make_draft, recipe_digest
from appliance.dicom.ct_volume import CtVolume
from appliance.dicom.geometry import SeriesGeometry
from appliance.dicom.planning_system import PlanningSystem
from appliance.dicom.roi import RoiMask
from appliance.segmentation.quality import RoiQuality
from appliance.segmentation.segment import Segmented
from appliance.settings import Protocol, Settings
from tests.support.config_folder import BONES, ROIS, make_settings

SHAPE = (6, 30, 40)
GEOMETRY = SeriesGeometry.axial(SHAPE, (3.0, 1.0, 1.0))
TEMPLATES = {
    **ROIS,
    "Prostate": {"number": 20, "colour": [1, 2, 3], "sex": "M"},
    "Bone_PRV03": {"number": 21, "colour": [1, 2, 3]},
    "CouchSurface": {"number": 22, "colour": [1, 2, 3], "interpreted_type": "SUPPORT"},
}


def block(name: str, first: int, last: int) -> RoiMask:
    voxels = np.zeros(SHAPE, np.bool_)
    voxels[1:5, 10:20, first:last] = True
    return RoiMask.from_volume(name, voxels)


def settings_of(folder: Path, **protocol: Any) -> Settings:
    forms = protocol.pop("planning_systems", {})
    folder.mkdir(exist_ok=True)
    (folder / "configs").mkdir(exist_ok=True)
    if forms:
        (folder / "configs" / "planning_systems.toml").write_text(forms)
    return make_settings(folder, rois=TEMPLATES, protocols={"bones": {**BONES, **protocol}})


def draft_of(settings: Settings, *found: RoiMask, sex: str = "M", quality: Sequence[RoiQuality] = ()) -> Draft:
    volume = CtVolume(np.full(SHAPE, -1000, np.int16), GEOMETRY)
    return make_draft(Segmented(found, tuple(quality)), volume, settings.protocols["bones"], settings, sex)


def test_structures_come_in_the_order_and_under_the_names_of_the_protocol(tmp_path: Path) -> None:
    rois = [{"roi": "Bone_Pelvic", "name": "Becken"}, "External"]
    draft = draft_of(
        settings_of(tmp_path, rois=rois),
        block("External", 0, 40),
        block("Bone_Pelvic", 5, 9),
        block("Femur_L", 20, 22),
    )
    assert [(region.template.name, region.mask.name) for region in draft.regions] == [
        ("Becken", "Becken"),
        ("External", "External"),
    ]
    assert draft.regions[0].template.number == ROIS["Bone_Pelvic"]["number"]
    assert draft.missing == draft.left_out == ()


def test_what_is_not_found_is_named_and_what_another_sex_has_is_left_out(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, rois=["External", "Bone_Pelvic", "Prostate"])
    found = [block("External", 0, 40), block("Prostate", 10, 12)]
    draft = draft_of(settings, *found, sex="F")
    assert [template.name for template in draft.missing] == ["Bone_Pelvic"]
    assert [template.name for template in draft.left_out] == ["Prostate"]
    words = draft.in_words(GEOMETRY)
    assert "Bone_Pelvic not found" in words
    assert "Prostate left out" in words
    assert "External 4.8 cm³" in words
    assert [one.template.name for one in draft_of(settings, *found, sex="M").regions] == ["External", "Prostate"]


def test_the_body_and_the_couch_alone_are_nothing(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, rois=["External", "Bone_Pelvic"])
    assert draft_of(settings, block("External", 0, 40)).shows_nothing
    assert not draft_of(settings, block("Bone_Pelvic", 0, 4)).shows_nothing


def test_a_derived_structure_knows_what_it_was_made_from(tmp_path: Path) -> None:
    settings = settings_of(
        tmp_path,
        rois=["Bone_Pelvic", "Bone_PRV03"],
        derived=[{"roi": "Bone_PRV03", "of": ["Bone_Pelvic", "Femur_L"], "margin_mm": 3}],
    )
    draft = draft_of(settings, block("Bone_Pelvic", 5, 9), block("Femur_L", 20, 22))
    bone, grown = draft.regions
    assert (bone.made_from, bone.recipe) == ((), "")
    assert grown.made_from == ("Bone_Pelvic",)  # Femur_L is used and not written
    assert grown.recipe == "Bone_Pelvic or Femur_L, grown by 3 mm"
    assert grown.mask.volume_cm3(GEOMETRY) > bone.mask.volume_cm3(GEOMETRY)


def test_limits_on_parts_hold_before_and_after_deriving(tmp_path: Path) -> None:
    voxels = np.zeros(SHAPE, np.bool_)
    voxels[1:5, 10:20, 5:9] = voxels[3, 28, 36] = True
    bone = RoiMask.from_volume("Bone_Pelvic", voxels)
    settings = settings_of(
        tmp_path,
        rois=[{"roi": "Bone_Pelvic", "largest_parts": 1}, {"roi": "Bone_PRV03", "largest_parts": 1}],
        derived=[{"roi": "Bone_PRV03", "of": ["Bone_Pelvic", "Femur_L"]}],
    )
    draft = draft_of(settings, bone, block("Femur_L", 20, 22))
    assert [int(region.mask.voxels.sum()) for region in draft.regions] == [160, 160]


def test_contours_are_drawn_in_the_form_of_the_planning_system(tmp_path: Path) -> None:
    settings = settings_of(
        tmp_path,
        rois=[{"roi": "Bone_Pelvic", "smooth_mm": 0.5, "simplify_mm": 0.2}],
        planning_system="other",
        planning_systems='[other]\nholes = "nested"\nmax_points = 500\n',
    )
    (region,) = draft_of(settings, block("Bone_Pelvic", 5, 9)).regions
    drawing = region.drawing
    assert (drawing.keyhole, drawing.smooth_mm, drawing.simplify_mm, drawing.max_points) == (False, 0.5, 0.2, 500)
    assert region.traced(GEOMETRY).volume_cm3 == pytest.approx(0.48)


@pytest.mark.parametrize(
    ("change", "other"),
    [
        ({"rois": ["Bone_Pelvic", "External"]}, True),
        ({"rois": ["External", {"roi": "Bone_Pelvic", "smooth_mm": 0.5}]}, True),
        ({"label": "OTHER"}, True),
        ({"match": {"body_part": ["HEAD"]}, "destinations": ["a", "b"], "title": "Other", "priority": 3}, False),
    ],
)
def test_another_recipe_has_another_digest_and_another_destination_has_not(change: dict[str, Any], other: bool) -> None:
    form = PlanningSystem()
    plain, changed = (Protocol.model_validate({**BONES, **more}) for more in ({}, change))
    assert (recipe_digest(plain, form) != recipe_digest(changed, form)) is other
    assert recipe_digest(plain, form) != recipe_digest(plain, PlanningSystem(holes="nested"))


FLAGGED = RoiQuality("Bone_Pelvic", 0.7123, 0.41, 12.0, ("the folds agree by 0.71 only, 0.90 or more is usual",), 0.2)
SURE = RoiQuality("External", 0.99, 0.05, 900.0, doubt=0.02)


def a_flagged_draft(folder: Path, *warnings: str) -> Draft:
    settings = settings_of(
        folder,
        rois=["External", {"roi": "Bone_Pelvic", "name": "Becken"}, "Bone_PRV03"],
        derived=[
            {"roi": "CouchSurface", "of": ["Bone_Pelvic"], "margin_mm": 1},
            {"roi": "Bone_PRV03", "of": ["CouchSurface"], "margin_mm": 3},
        ],
    )
    volume = CtVolume(np.full(SHAPE, -1000, np.int16), GEOMETRY)
    found = Segmented((block("External", 0, 40), block("Bone_Pelvic", 5, 9)), (SURE, FLAGGED), warnings)
    return make_draft(found, volume, settings.protocols["bones"], settings, "M")


def test_a_flag_goes_with_its_structure_and_with_all_that_is_made_from_it(tmp_path: Path) -> None:
    draft = a_flagged_draft(tmp_path)
    external, bone, grown = draft.regions
    assert (external.flags, bone.flags) == ((), FLAGGED.flags)
    assert grown.flags == (f"made from CouchSurface, where made from Becken, where {FLAGGED.flags[0]}",)
    assert draft.to_look_at == ("Becken", "Bone_PRV03")
    assert (bone.quality, grown.quality) == (FLAGGED, None)
    assert [region.template.name for region in draft.regions] == ["External", "Becken", "Bone_PRV03"], "names stay"


def test_the_trail_gets_every_figure_and_every_sentence(tmp_path: Path) -> None:
    draft = a_flagged_draft(tmp_path, "slices are 8.00 mm apart")
    told = draft.assessment()
    assert told["to_look_at"] == ["Becken", "Bone_PRV03"]
    assert told["structures"]["Becken"] == {
        "fold_dice": 0.7123, "entropy": 0.41, "doubt": 0.2, "volume_cm3": 12.0, "flags": list(FLAGGED.flags),
    }  # fmt: skip
    assert told["structures"]["External"]["flags"] == []
    words = draft.look_in_words()
    assert "look carefully at Becken: the folds agree by 0.71 only" in words
    assert "about the scan: slices are 8.00 mm apart" in words


def test_a_draft_without_flags_says_so(tmp_path: Path) -> None:
    draft = draft_of(settings_of(tmp_path), block("External", 0, 40))
    assert draft.look_in_words() == "no structure needs more than the usual look"


def test_what_is_drawn_says_how_far_the_networks_agree_and_why_to_look(tmp_path: Path) -> None:
    external, bone, _ = a_flagged_draft(tmp_path).regions
    assert external.traced(GEOMETRY).description == "Automatic draft, not reviewed; the networks agree by 0.99"
    assert bone.traced(GEOMETRY).description == (
        "Automatic draft, not reviewed; LOOK CAREFULLY: the folds agree by 0.71 only, 0.90 or more is usual; "
        "the networks agree by 0.71"
    )
