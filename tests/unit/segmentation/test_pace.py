"""The time that is left: nothing is promised too early, and what is said follows from what was done."""

import pytest

from appliance.segmentation.pace import in_words, time_left_s


@pytest.mark.parametrize(("done", "total"), [(0, 10), (2, 10), (3, 400), (7, 400), (0, 1)])
def test_nothing_is_promised_after_the_first_runs(done: int, total: int) -> None:
    assert time_left_s(done, total, 60.0) is None


def test_a_clock_that_has_not_moved_promises_nothing() -> None:
    assert time_left_s(5, 10, 0.0) is None
    assert time_left_s(5, 10, -1.0) is None


@pytest.mark.parametrize(("done", "total", "elapsed_s", "left_s"), [(5, 10, 20.0, 20.0), (8, 400, 16.0, 784.0)])
def test_the_rest_takes_as_long_a_piece_as_what_is_done(done: int, total: int, elapsed_s: float, left_s: float) -> None:
    assert time_left_s(done, total, elapsed_s) == pytest.approx(left_s)


def test_nothing_is_left_of_finished_work() -> None:
    assert time_left_s(10, 10, 33.0) == 0.0
    assert time_left_s(0, 0, 0.0) == 0.0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "5 s"), (43.0, "45 s"), (56.0, "1 min"), (200.0, "3 min"), (3599.0, "1 h 00 min"), (4800.0, "1 h 20 min")],
)
def test_a_time_is_told_no_more_exactly_than_it_is_known(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
