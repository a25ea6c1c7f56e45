"""The documents against the tree: what they point to is there."""

import ast
import re
from pathlib import Path

import pytest

from appliance.errors import Reason
from appliance.running.advice import ADVICE

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#]+)")
NAMED_TEST = re.compile(r"`([a-z_/]+\.py)::(test_\w+)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    broken = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert broken == []


@pytest.mark.parametrize(("page", "at_least"), [("hazards.md", 40), ("threat-model.md", 15)])
def test_every_test_that_the_hazards_name_exists(page: str, at_least: int) -> None:
    named = NAMED_TEST.findall((ROOT / "docs" / page).read_text())
    assert len(named) > at_least
    missing = [f"{file}::{test}" for file, test in named if test not in _tests_in(ROOT / "tests" / file)]
    assert missing == []


def test_every_reason_has_its_row_that_says_what_to_do() -> None:
    page = (ROOT / "docs" / "reasons.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == [str(reason) for reason in Reason]
    printed = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| (.*) \|$", page, re.MULTILINE))
    assert printed == {str(reason): words for reason, words in ADVICE.items()}


def _tests_in(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}
