"""The page of evidence says what was tried and what was not, and a short run does not wipe out a long one."""

from pathlib import Path

import pytest

from tests.support.evidence import FAILED, ROWS, SKIPPED, Entry, Run, bound, page_lines, write_evidence

HERE = "tests/unit/test_evidence_page.py"
KILLS = f"{HERE}::test_a_long_run_is_shown_until_the_code_changes"
FLOOD = f"{HERE}::test_what_was_not_run_is_loud"


def _page(folder: Path, *runs: tuple[str, str, Run]) -> str:
    told = {test: (row, "never lose", run) for test, row, run in runs}
    write_evidence(folder / "evidence.json", told, machine="2 cores")
    return (folder / "evidence.md").read_text()


def test_a_long_run_is_shown_until_the_code_changes(tmp_path: Path) -> None:
    assert "| 300 | 0 | 1 % |" in _page(tmp_path, (KILLS, "F1", Run(tried=300, figures={"kills": "300"})))
    assert "| 300 | 0 | 1 % |" in _page(tmp_path, (KILLS, "F1", Run(tried=6)))
    kept = tmp_path / "evidence.json"
    kept.write_text(kept.read_text().replace('"code": "', '"code": "old'))
    after = _page(tmp_path, (KILLS, "F1", Run(tried=6)))
    assert "| 6 | 0 | 50 % |" in after
    assert "300 tries, 0 failures" in after, "what the longest had shown stays beside it"


def test_what_was_not_run_is_loud(tmp_path: Path) -> None:
    page = _page(tmp_path, (KILLS, "F1", Run(tried=9)), (FLOOD, "F14", Run(outcome=SKIPPED, why="no network here")))
    assert "**1 tests were not run.**" in page
    assert f"- {FLOOD}: no network here" in page
    assert f"- F14: {ROWS['F14']}" in page


def test_a_failure_is_never_hidden_by_an_older_success(tmp_path: Path) -> None:
    _page(tmp_path, (KILLS, "F1", Run(tried=300)))
    page = _page(tmp_path, (KILLS, "F1", Run(outcome=FAILED, tried=6, failed=1)))
    assert "**FAILED**" in page
    assert "1 tests failed" in page


def test_a_test_that_is_gone_leaves_the_page(tmp_path: Path) -> None:
    _page(tmp_path, (f"{HERE}::test_of_long_ago", "F1", Run(tried=300)))
    assert "of long ago" not in _page(tmp_path, (KILLS, "F2", Run(tried=6)))


def test_rows_come_in_their_order_and_other_hazards_behind_them() -> None:
    run = Run(tried=4)
    entries = {row: Entry(row, "never lose", run, run) for row in ("flood", "F10", "F2")}
    lines = [line.split()[1] for line in page_lines(entries) if line.startswith("| ") and "|---" not in line]
    assert lines == ["row", "F2", "F10", "flood"]


@pytest.mark.parametrize(("tried", "failed", "words"), [(300, 0, "1 %"), (3000, 0, "0.1 %"), (2, 0, ""), (300, 1, "")])
def test_the_bound_is_that_of_the_rule_of_three(tried: int, failed: int, words: str) -> None:
    assert bound(tried, failed) == words
