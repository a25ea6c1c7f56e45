"""How long is waited: longer after each failure, never beyond the cap, spread by chance."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.delivery.pacing import Pacing


@given(failures=st.integers(0, 10_000), chance=st.floats(0, 1))
def test_a_wait_is_between_half_of_its_length_and_all_of_it(failures: int, chance: float) -> None:
    pacing = Pacing(5.0, 900.0, draw=lambda: chance)
    longest_s = min(900.0, 5.0 * 2.0 ** min(failures, 20))
    assert longest_s / 2 <= pacing.wait_s(failures) <= longest_s


def test_waits_differ_so_that_boxes_that_failed_together_do_not_come_back_together() -> None:
    pacing = Pacing(5.0, 900.0)
    waits_s = {round(pacing.wait_s(9), 3) for _ in range(50)}
    assert len(waits_s) > 40
    assert max(waits_s) - min(waits_s) > 200


def test_what_failed_rests_by_the_clock_that_never_steps_back() -> None:
    now_s = 100.0
    pacing = Pacing(5.0, 60.0, ticking=lambda: now_s, draw=lambda: 1.0)
    assert pacing.rest_s("pacs") == 0.0
    assert pacing.failed("pacs") == 5.0
    assert pacing.failed("pacs") == 10.0
    now_s = 109.0
    assert pacing.rest_s("pacs") == pytest.approx(1.0)
    assert pacing.rest_s("other") == 0.0
    pacing.succeeded("pacs")
    assert pacing.rest_s("pacs") == 0.0
    assert pacing.failed("pacs") == 5.0


def test_failures_from_before_a_restart_count() -> None:
    assert Pacing(5.0, 60.0, draw=lambda: 1.0).failed("pacs", at_least=3) == 40.0
