import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.dicom.uid import derive_uid, is_valid_uid


@pytest.mark.parametrize("text", ["1.2", "1.2.840.10008.5.1.4.1.1.2", "2.25.0", "0.0", "1." + "2" * 62])
def test_a_uid_of_digits_and_dots_is_valid(text: str) -> None:
    assert is_valid_uid(text)


@pytest.mark.parametrize(
    "text",
    ["", "1", ".", "1.", ".1", "1..2", "1.02", "1.2 ", "1.2\n", "1.2\0", "1.٣", "../../etc", "1.2.a", "1." + "2" * 63],
)
def test_anything_else_is_not_a_uid(text: str) -> None:
    assert not is_valid_uid(text)


@given(st.lists(st.text(max_size=80), max_size=6))
def test_a_derived_uid_is_valid_short_and_repeatable(parts: list[str]) -> None:
    uid = derive_uid(*parts)
    assert is_valid_uid(uid)
    assert len(uid) <= 44
    assert derive_uid(*parts) == uid


@given(st.lists(st.text(max_size=5), max_size=4), st.lists(st.text(max_size=5), max_size=4))
def test_other_parts_give_another_uid_wherever_they_are_cut(first: list[str], second: list[str]) -> None:
    assert (derive_uid(*first) == derive_uid(*second)) is (first == second)


def test_moving_a_letter_between_parts_changes_the_uid() -> None:
    assert derive_uid("ab", "c") != derive_uid("a", "bc") != derive_uid("abc")
