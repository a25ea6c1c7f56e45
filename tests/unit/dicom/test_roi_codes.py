"""The shipped structures carry the codes, sides and names that the terminologies and TG-263 give them."""

import itertools
import math
import re
from functools import cache
from pathlib import Path

import pytest
from pydicom.sr._concepts_dict import concepts

from appliance.dicom.roi import RoiTemplate
from appliance.settings import load_settings
from appliance.settings.written_names import side_in_name

CONFIGS = Path(__file__).parents[3] / "configs"
ROIS = load_settings(CONFIGS).rois
CODED = [roi for roi in ROIS.values() if roi.code is not None]
_FIRST = {"External": 1, "Bladder": 2, "Rectum": 3, "Prostate": 4, "Femur_L": 5, "Femur_R": 6}
FIRST_NUMBERS = {**_FIRST, "Bone_Pelvic": 7, "Sacrum": 8, "Bowel": 9}

OUTSIDE_PS3_16 = {
    "113276009": "Intestinal structure",
    "80169004": "Cochlear structure",
    "34381000": "Anal canal structure",
    "3572006": "Vertebral body",
}
"""Not in DICOM's own dictionary. All are in the map of TG-263 to SNOMED CT of HL7 mCODE, and each in a second list: the
first three in public code lists of pathology and of FHIR servers, the last in TotalSegmentator's map."""

_DIHEDRAL = (
    "0123456789 1234067895 2340178956 3401289567 4012395678 5987604321 6598710432 7659821043 8765932104 9876543210"
)
_PERMUTATION = "0123456789 1576283094 5803796142 8916043527 9453126870 4286573901 2793806415 7046913258"


@cache
def _meanings(code: str) -> set[str]:
    """What DICOM's dictionary calls a SNOMED CT code, in small letters, with and without `structure`."""
    known = {
        text
        for keyword, codes in concepts["SCT"].items()
        if code in codes
        for text in (codes[code][0], re.sub(r"(?<=[a-z])(?=[A-Z])", " ", keyword))
    }
    plain = {re.sub(r" \(.*\)$", "", text).lower() for text in known}
    return plain | {text.removesuffix(" structure") for text in plain}


def _verhoeff_holds(code: str) -> bool:
    """Whether the last digit checks the others, as in every SNOMED CT identifier."""
    check = 0
    for place, digit in enumerate(reversed(code)):
        permuted = int(_PERMUTATION.split()[place % 8][int(digit)])
        check = int(_DIHEDRAL.split()[check][permuted])
    return check == 0


@pytest.mark.parametrize("roi", CODED, ids=lambda roi: roi.name)
def test_a_code_means_what_the_dictionary_of_dicom_says_it_means(roi: RoiTemplate) -> None:
    assert roi.code is not None
    assert roi.code.scheme == "SCT"
    if roi.code.value in OUTSIDE_PS3_16:
        assert not _meanings(roi.code.value), "DICOM knows it now: take it out of the list"
        assert roi.code.meaning == OUTSIDE_PS3_16[roi.code.value]
    else:
        assert roi.code.meaning.lower() in _meanings(roi.code.value)


@pytest.mark.parametrize("code", sorted({roi.code.value for roi in CODED if roi.code}))
def test_a_code_is_not_mistyped(code: str) -> None:
    assert _verhoeff_holds(code)


def test_the_check_of_digits_finds_a_slip() -> None:
    assert not _verhoeff_holds("89837010")
    assert not _verhoeff_holds("71341002")


def test_every_name_fits_tg_263_and_every_planning_system() -> None:
    assert [name for name in ROIS if len(name) > 16] == []
    assert len({name.casefold() for name in ROIS}) == len(ROIS)
    assert [name for name in ROIS if not name[0].isupper() and name[0] != "z"] == []


def test_the_numbers_of_the_first_release_stay_and_all_differ() -> None:
    assert {name: ROIS[name].number for name in FIRST_NUMBERS} == FIRST_NUMBERS
    assert len({roi.number for roi in ROIS.values()}) == len(ROIS)
    assert max(roi.number for roi in ROIS.values()) < 1000  # from there on a site's own


def test_a_name_says_left_or_right_exactly_where_the_side_or_the_code_does() -> None:
    sides = {"L": "left", "R": "right"}
    for roi in ROIS.values():
        found = re.search(r"_([LR])([UML]L)?$", roi.name)
        said = {"left", "right"} & set(roi.code.meaning.lower().split() if roi.code else ())
        assert roi.side is None or not said, f"{roi.name}: a code with a side needs no modifier"
        assert not found or {roi.side, *said} - {None} == {sides[found[1]]}, roi.name
        assert found or roi.side is None, roi.name


def test_no_code_names_the_other_side() -> None:
    for roi in ROIS.values():
        other = {"left": "right", "right": "left"}.get(side_in_name(roi.name) or "")
        meanings = " ".join(code.meaning.lower() for code in (roi.code, roi.fma) if code)
        assert other is None or other not in meanings.split(), roi.name


def test_pairs_are_complete_and_agree_but_for_their_side() -> None:
    lefts = [roi for roi in ROIS.values() if roi.name.endswith("_L")]
    assert {roi.name[:-1] + "R" for roi in lefts} == {name for name in ROIS if name.endswith("_R")}
    for left in lefts:
        right = ROIS[left.name[:-1] + "R"]
        assert (left.sex, left.interpreted_type) == (right.sex, right.interpreted_type)
        assert right.number == left.number + 1
        assert (left.fma is None) == (right.fma is None)
        # the Foundational Model of Anatomy numbers the right one first, the left one after it
        assert left.fma is None or right.fma is None or 0 < int(left.fma.value) - int(right.fma.value) <= 5, left.name


def test_a_terminology_gives_one_structure_one_number_of_its_own() -> None:
    fma = [roi.fma.value for roi in ROIS.values() if roi.fma]
    assert len(set(fma)) == len(fma)
    assert {roi.fma.scheme for roi in ROIS.values() if roi.fma} == {"FMA"}


def test_every_colour_can_be_told_from_every_other_and_seen_on_a_grey_image() -> None:
    for one, other in itertools.combinations(ROIS.values(), 2):
        assert math.dist(one.colour, other.colour) > 25, (one.name, other.name)
    assert [roi.name for roi in ROIS.values() if max(roi.colour) < 130] == []


def test_left_and_right_look_alike_and_are_not_the_same() -> None:
    for left in ROIS.values():
        if left.name.endswith("_L"):
            assert 60 < math.dist(left.colour, ROIS[left.name[:-1] + "R"].colour) < 125, left.name


def test_only_organs_of_one_sex_are_kept_to_it() -> None:
    assert {roi.name for roi in ROIS.values() if roi.sex == "F"} == {"Uterus", "Cervix", "Vagina", "Ovary_L", "Ovary_R"}
    male = {"Prostate", "ProstateBed", "SeminalVes", "PenileBulb", "Testis_L", "Testis_R"}
    assert {roi.name for roi in ROIS.values() if roi.sex == "M"} == male


def test_targets_helpers_and_the_couch_say_what_they_are() -> None:
    for roi in ROIS.values():
        kind = roi.name[:3]
        if kind in {"GTV", "CTV", "PTV"}:
            assert roi.interpreted_type == kind
        elif "_PRV" in roi.name or roi.name.startswith("z"):
            assert (roi.interpreted_type, roi.code) == ("AVOIDANCE", None)
        elif roi.name.startswith("Couch"):
            assert roi.interpreted_type == "SUPPORT"
        else:
            assert roi.interpreted_type == ("EXTERNAL" if roi.name == "External" else "ORGAN")
