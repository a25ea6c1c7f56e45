"""What the rules of a protocol make of what was found."""

from typing import Any

import numpy as np
import pytest

from appliance.dicom.contours import trace
from appliance.dicom.ct_volume import CtVolume
from appliance.dicom.rasterising import rasterise
from appliance.dicom.roi import RoiMask
from appliance.segmentation.derived import derive
from appliance.segmentation.margins import ring, with_margin
from appliance.settings import DerivedRoi
from tests.support.ct_volumes import scan, series_grid
from tests.support.solids import ball, solid

GEOMETRY = series_grid("HFS", (16, 50, 50), (4.0, 4.0, 4.0))
AIR = CtVolume(np.full(GEOMETRY.shape, -1000, np.int16), GEOMETRY)
CORD = solid(ball(12), GEOMETRY, "Cord", known_surface=True)
PTV = solid(ball(16, (14, 0, 0)), GEOMETRY, "PTV")


def body_of_water() -> CtVolume:
    return scan(lambda x, y, z: np.where(np.hypot(x, y) + 0 * z < 80, 0, -1000), GEOMETRY)


def derived(*rules: dict[str, Any], masks: Any = (CORD, PTV), external: str | None = None, ct: CtVolume = AIR) -> Any:
    made = derive([DerivedRoi.model_validate(rule) for rule in rules], masks, ct, external)
    return {mask.name: mask.in_grid(GEOMETRY.shape) for mask in made}


def grid(mask: RoiMask) -> Any:
    return mask.in_grid(GEOMETRY.shape)


def test_what_was_found_comes_first_and_stays_as_it_is() -> None:
    made = derive([DerivedRoi(roi="Cord_PRV", of=("Cord",), margin_mm=5.0)], [CORD, PTV], AIR, None)
    assert [mask.name for mask in made] == ["Cord", "PTV", "Cord_PRV"]
    assert made[0] is CORD
    assert made[1] is PTV
    assert np.array_equal(grid(made[2]), grid(with_margin(CORD, GEOMETRY, 5.0)))
    assert made[2].certainty is not None


def test_union_and_intersection_take_several_structures() -> None:
    made = derived(
        {"roi": "Both", "of": ["Cord", "PTV"]}, {"roi": "Shared", "of": ["Cord", "PTV"], "combine": "intersection"}
    )
    assert np.array_equal(made["Both"], grid(CORD) | grid(PTV))
    assert np.array_equal(made["Shared"], grid(CORD) & grid(PTV))
    assert made["Shared"].any()


def test_rules_work_in_their_order_first_growing_then_taking_away_then_limiting() -> None:
    rule = {"roi": "X", "of": "Cord", "margin_mm": 8, "minus": "PTV", "within": ["Wide"]}
    made = derived({"roi": "Wide", "of": "Cord", "margin_mm": {"left": 8, "superior": 8}}, rule)
    expected = grid(with_margin(CORD, GEOMETRY, 8.0)) & ~grid(PTV) & made["Wide"]
    assert np.array_equal(made["X"], expected)
    assert expected.any()


def test_a_ring_lies_around_and_never_within() -> None:
    made = derived({"roi": "Ring", "of": "PTV", "ring_mm": [4, 12]})
    assert np.array_equal(made["Ring"], grid(ring(PTV, GEOMETRY, 4.0, 12.0)))
    assert not (made["Ring"] & grid(PTV)).any()


def test_a_rule_may_use_what_an_earlier_one_made() -> None:
    made = derived({"roi": "A", "of": "Cord", "margin_mm": 4}, {"roi": "B", "of": "A", "minus": "Cord"})
    assert np.array_equal(made["B"], made["A"] & ~grid(CORD))


@pytest.mark.parametrize(
    "rule",
    [
        {"of": "Lost"},
        {"of": ["Lost", "Gone"]},
        {"of": ["Cord", "Lost"], "combine": "intersection"},
        {"of": "Cord", "within": "Lost"},
        {"of": "Cord", "within": ["PTV", "Lost"]},
        {"of": "Lost", "ring_mm": [0, 5]},
        {"of": "Cord", "skin_mm": 5},
        {"from_ct": "body"},
        {"from_ct": "couch"},
    ],
)
def test_without_what_decides_about_it_a_structure_is_not_made(rule: dict[str, Any]) -> None:
    assert list(derived({"roi": "X", **rule})) == ["Cord", "PTV"]


def test_a_union_is_made_of_what_was_found() -> None:
    assert np.array_equal(derived({"roi": "X", "of": ["Lost", "Cord"]})["X"], grid(CORD))


def test_taking_away_what_was_not_found_takes_nothing_away() -> None:
    assert np.array_equal(derived({"roi": "X", "of": "Cord", "minus": ["Lost"]})["X"], grid(CORD))


def test_what_is_empty_is_left_out_and_missing_from_there_on() -> None:
    made = derived(
        {"roi": "Empty", "of": "Cord", "minus": "Cord"},
        {"roi": "Depends", "of": "Cord", "within": "Empty"},
        {"roi": "Gone", "of": "Cord", "margin_mm": -40},
    )
    assert list(made) == ["Cord", "PTV"]


def test_a_derived_structure_takes_the_place_of_a_found_one() -> None:
    external = solid(ball(30), GEOMETRY, "External")
    made = derived({"roi": "External", "from_ct": "body"}, masks=(external, CORD), ct=body_of_water())
    assert list(made) == ["External", "Cord"]
    assert np.count_nonzero(made["External"]) > 5 * np.count_nonzero(grid(external))


def test_a_found_structure_never_stands_for_one_that_could_not_be_derived() -> None:
    external = solid(ball(30), GEOMETRY, "External")
    assert list(derived({"roi": "External", "from_ct": "body"}, masks=(external, CORD))) == ["Cord"]


def test_skin_is_measured_from_the_external_structure_or_else_from_the_body_in_the_ct() -> None:
    external = solid(ball(24), GEOMETRY, "External")
    rule = {"roi": "Skin", "of": ["External", "PTV"], "skin_mm": 8}
    given = derived(rule, masks=(external, PTV), external="External", ct=body_of_water())
    assert np.array_equal(given["Skin"], (grid(external) | grid(PTV)) & grid(ring(external, GEOMETRY, -8.0, 0.0)))
    assert given["Skin"].any()
    wide = {"roi": "Skin", "of": ["PTV"], "margin_mm": 100, "skin_mm": 8}
    for name in (None, "External"):
        found = derived(wide, masks=(PTV,), external=name, ct=body_of_water())["Skin"]
        row = found[8, 25]
        assert np.flatnonzero(row[:25]).tolist() == [5, 6]
        assert found.any(axis=(1, 2)).all()  # the scan ends in the body: there is no skin across it
        assert not found[:, 20:30, 20:30].any()


def test_a_structure_of_its_own_name_is_derived_once_for_several_rules() -> None:
    made = derived(
        {"roi": "External", "from_ct": "body"},
        {"roi": "Rim", "of": "External", "skin_mm": 8},
        masks=(),
        external="External",
        ct=body_of_water(),
    )
    assert (made["Rim"] & ~made["External"]).sum() == 0
    assert made["Rim"].any()


def test_contours_of_what_was_derived_give_its_voxels_back() -> None:
    rules = [
        {"roi": "Grown", "of": "Cord", "margin_mm": 7.3},
        {"roi": "Sides", "of": "Cord", "margin_mm": {"left": 9, "anterior": 3, "inferior": 5}},
        {"roi": "Ring", "of": "PTV", "ring_mm": [-3, 6.5], "minus": "Cord", "within": ["Grown", "Sides"]},
        {"roi": "Body", "from_ct": "body"},
    ]
    made = derive([DerivedRoi.model_validate(rule) for rule in rules], [CORD, PTV], body_of_water(), None)
    assert len(made) == 6
    for mask in made:
        back = rasterise(trace(mask, GEOMETRY), GEOMETRY)
        assert np.array_equal(back.in_grid(GEOMETRY.shape), mask.in_grid(GEOMETRY.shape)), mask.name
