from pathlib import Path

import pytest

from appliance.segmentation.engine_record import EngineRecord
from appliance.segmentation.parity import Outcome

SLOW = Outcome("too slow", 1.0, 2.0, 3, 4)


def test_what_was_found_out_outlives_the_process(tmp_path: Path) -> None:
    path = tmp_path / "engines" / "examined.json"
    EngineRecord(path).keep("a", "openvino", SLOW)
    EngineRecord(path).keep("a", "torch", Outcome())
    EngineRecord(path).keep("b", "torch", Outcome(least_dice=0.5))
    EngineRecord(path).note("a", "runs on torch")
    again = EngineRecord(path)
    assert again.outcome("a", "openvino") == SLOW
    assert again.outcome("b", "torch") == Outcome(least_dice=0.5)
    assert again.outcome("b", "openvino") is None
    assert (again.runs_on("a"), again.runs_on("b")) == ("runs on torch", None)
    assert [each.name for each in path.parent.iterdir()] == ["examined.json"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 0, "models": {"a": {}}}', '{"format": 1}'])
def test_a_record_that_cannot_be_read_is_as_good_as_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "examined.json"
    path.write_text(content)
    assert EngineRecord(path).outcome("a", "torch") is None
    EngineRecord(path).keep("a", "torch", SLOW)
    assert EngineRecord(path).outcome("a", "torch") == SLOW


def test_an_outcome_with_fields_of_another_release_is_found_out_again(tmp_path: Path) -> None:
    path = tmp_path / "examined.json"
    path.write_text('{"format": 1, "models": {"a": {"engines": {"torch": {"speed": 1}}}}}')
    assert EngineRecord(path).outcome("a", "torch") is None


def test_what_may_be_otherwise_next_time_is_not_kept(tmp_path: Path) -> None:
    record = EngineRecord(tmp_path / "examined.json")
    record.keep("a", "torch", Outcome("there was no room", lasting=False))
    assert record.outcome("a", "torch") is None


def test_a_record_without_a_place_keeps_nothing() -> None:
    record = EngineRecord(None)
    record.keep("a", "torch", SLOW)
    record.note("a", "runs on torch")
    assert (record.outcome("a", "torch"), record.runs_on("a")) == (None, None)
