"""Settings of whom is asked and what is fetched: defaults that ask nobody, and mistakes named with their line."""

from pathlib import Path
from typing import Any

import pytest

from appliance.errors import SettingsError
from appliance.settings.completion import CompletionRules
from tests.support.config_folder import BONES, PACS, make_settings

ARCHIVE = {**PACS, "ae_title": "ARCHIVE", "query": True}


def settings_with(folder: Path, **tables: Any) -> Any:
    peers = {"pacs": PACS, "archive": ARCHIVE}
    return make_settings(folder, peers=peers, protocols={"bones": {**BONES, **tables}})


def test_by_default_nobody_is_asked_and_the_boxs_own_times_hold(tmp_path: Path) -> None:
    rules = settings_with(tmp_path).completion_rules("bones", "FAKEPACS")
    assert rules == CompletionRules(quiet_s=30.0, incomplete_wait_s=600.0, count="if_answered", count_wait_s=20.0)


def test_a_sender_that_answers_is_asked_without_more_being_said(tmp_path: Path) -> None:
    settings = settings_with(tmp_path)
    assert settings.completion_rules("bones", "ARCHIVE").peer == "archive"
    assert settings.completion_rules(None, "ARCHIVE").peer is None, "no protocol, no questions"


def test_a_protocol_says_who_is_asked_and_how_long_all_of_it_takes(tmp_path: Path) -> None:
    completion = {"count_peer": "archive", "quiet_s": 5, "incomplete_wait_s": 7, "count": "required"}
    rules = settings_with(tmp_path, completion=completion).completion_rules("bones", "FAKEPACS")
    assert (rules.peer, rules.quiet_s, rules.incomplete_wait_s, rules.count) == ("archive", 5.0, 7.0, "required")


def test_nothing_is_asked_or_fetched_where_the_count_is_to_be_ignored(tmp_path: Path) -> None:
    completion = {"count_peer": "archive", "count": "ignore", "fetch_missing": True}
    rules = settings_with(tmp_path, completion=completion).completion_rules("bones", "ARCHIVE")
    assert (rules.peer, rules.fetch_missing) == (None, False)


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"completion": {"count_peer": "archiv"}}, "peer 'archiv' is not defined; did you mean archive?"),
        ({"completion": {"count_peer": "pacs"}}, "pacs is not to be asked; give it `query = true` in peers.toml"),
        ({"completion": {"count": "perhaps"}}, "completion.count: Input should be 'if_answered'"),
        ({"fetch": {"peer": "pacs", "every_min": 5}}, "pacs is not to be asked"),
        ({"fetch": {"peer": "nobody", "every_min": 5}}, "peer 'nobody' is not defined"),
        ({"fetch": {"peer": "archive"}}, "give either `every_min` or `at`"),
        ({"fetch": {"peer": "archive", "every_min": 5, "at": ["12:00"]}}, "give either `every_min` or `at`"),
        ({"fetch": {"peer": "archive", "at": ["24:00"]}}, "'24:00' is no time of day"),
        (
            {"fetch": {"peer": "archive", "at": ["12:00"], "between": ["18:00", "06:00"]}},
            "`between` belongs to `every_min`",
        ),
    ],
)
def test_a_mistake_stops_the_start_in_a_sentence_with_its_line(
    tmp_path: Path, tables: dict[str, Any], words: str
) -> None:
    with pytest.raises(SettingsError) as stopped:
        settings_with(tmp_path, **tables)
    assert words in str(stopped.value)
    assert str(stopped.value).startswith("protocols/bones.toml, line ")
