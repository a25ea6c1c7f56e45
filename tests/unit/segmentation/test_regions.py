"""Unions, intersections and differences against numpy's own, and what becomes of certainty."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from appliance.dicom.roi import RoiMask
from appliance.segmentation.regions import difference, intersection, union

SHAPE = (3, 6, 7)
PIXELS = arrays.arrays(np.bool_, SHAPE, elements=st.booleans())
CERTAINTIES = st.none() | arrays.arrays(np.uint8, SHAPE, elements=st.integers(1, 255))


def mask_of(voxels: Any, certainty: Any = None) -> RoiMask:
    mask = RoiMask.from_volume("Any", voxels)
    return mask if certainty is None else mask.with_certainty(certainty)


MASKS = st.builds(mask_of, PIXELS, CERTAINTIES)


def same(first: RoiMask, second: RoiMask) -> bool:
    if not np.array_equal(first.in_grid(SHAPE), second.in_grid(SHAPE)):
        return False
    if first.certainty is None or second.certainty is None:
        return first.certainty is second.certainty
    return first.box == second.box and np.array_equal(first.certainty, second.certainty)


@settings(max_examples=60, deadline=None)
@given(first=MASKS, second=MASKS, third=MASKS)
def test_regions_are_combined_as_sets_are(first: RoiMask, second: RoiMask, third: RoiMask) -> None:
    a, b, c = (mask.in_grid(SHAPE) for mask in (first, second, third))
    assert np.array_equal(union("U", [first, second, third], SHAPE).in_grid(SHAPE), a | b | c)
    assert np.array_equal(intersection("I", [first, second, third], SHAPE).in_grid(SHAPE), a & b & c)
    assert np.array_equal(difference(first, [second, third], SHAPE).in_grid(SHAPE), a & ~b & ~c)


@settings(max_examples=60, deadline=None)
@given(first=MASKS, second=MASKS)
def test_the_order_of_a_union_or_an_intersection_does_not_matter(first: RoiMask, second: RoiMask) -> None:
    assert same(union("X", [first, second], SHAPE), union("X", [second, first], SHAPE))
    assert same(intersection("X", [first, second], SHAPE), intersection("X", [second, first], SHAPE))


@settings(max_examples=60, deadline=None)
@given(first=MASKS, second=MASKS)
def test_a_result_with_certainty_holds_the_neighbours_that_contours_ask(first: RoiMask, second: RoiMask) -> None:
    for made in (union("X", [first, second], SHAPE), intersection("X", [first, second], SHAPE)):
        if made.certainty is None or made.is_empty:
            continue
        assert made.certainty.min() > 0
        tight = RoiMask.from_volume("X", made.in_grid(SHAPE)).box
        assert made.box[0] == tight[0]
        for side, own, length in zip(tight[1:], made.box[1:], SHAPE[1:], strict=True):
            assert own == slice(max(0, side.start - 1), min(length, side.stop + 1))


def test_contours_of_a_union_run_where_those_of_the_outer_region_do() -> None:
    voxels = np.zeros(SHAPE, np.bool_)
    voxels[1, 2:5, 2:5] = True
    certainty = np.full(SHAPE, 100, np.uint8)
    certainty[~voxels] = 50
    core = np.zeros(SHAPE, np.bool_)
    core[1, 3, 3] = True
    made = union("X", [mask_of(voxels, certainty), mask_of(core)], SHAPE)
    assert made.certainty is not None
    assert made.box == (slice(1, 2), slice(1, 6), slice(1, 6))
    ring = made.voxels[0].copy()
    ring[2, 2] = False
    assert (made.certainty[0][ring] == 100).all()
    assert (made.certainty[0][~made.voxels[0]] == 50).all()


def test_contours_along_what_is_taken_away_run_where_its_own_did() -> None:
    voxels, certainty = np.ones(SHAPE, np.bool_), np.full(SHAPE, 255, np.uint8)
    away = np.zeros(SHAPE, np.bool_)
    away[:, :, 4:] = True
    away_certainty = np.full(SHAPE, 40, np.uint8)
    away_certainty[away] = 160
    left = difference(mask_of(voxels, certainty), [mask_of(away, away_certainty)], SHAPE)
    assert left.certainty is not None
    assert (left.certainty[:, :, 3] == 40).all()
    assert (left.certainty[:, :, 4] == 160).all()


def test_masks_without_certainty_give_one_without() -> None:
    voxels = np.zeros(SHAPE, np.bool_)
    voxels[1, 2:5, 2:5] = True
    made = union("X", [mask_of(voxels), mask_of(voxels[::-1])], SHAPE)
    assert made.certainty is None
    assert made.box == (slice(1, 2), slice(2, 5), slice(2, 5))


def test_regions_that_do_not_meet_have_nothing_in_common() -> None:
    first, second = np.zeros((2, *SHAPE), np.bool_)
    first[0, 0, 0] = second[2, 5, 6] = True
    assert intersection("X", [mask_of(first), mask_of(second)], SHAPE).is_empty
    assert same(difference(mask_of(first), [mask_of(second)], SHAPE), mask_of(first))
