"""`delineate account`, `reconcile` and `retention`: what they say, and how they exit."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from appliance.cli import main
from appliance.records import Database
from appliance.records.tables import CaseState
from appliance.spool import Spool
from tests.support.config_folder import make_settings
from tests.support.rows import new_case

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a command on a box with a migrated database."""
    settings = make_settings(tmp_path, protocols={})
    Database(settings.database_url).migrate()

    def _run(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["--config", str(settings.folder), *arguments])

    return _run


def test_an_account_without_residue_says_so_and_exits_with_0(run: Run) -> None:
    answer = run("account")
    assert answer.exit_code == 0, answer.output
    assert "0 objects received" in answer.output
    assert "Nothing is unaccounted for." in answer.output


def test_what_cannot_be_accounted_for_is_named_and_exits_with_1(run: Run, tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'var' / 'delineate.sqlite'}")
    new_case(database, CaseState.DELIVERED)
    Spool(tmp_path / "var" / "spool")
    answer = run("account", "--json")
    assert answer.exit_code == 1, answer.output
    told = json.loads(answer.output)
    assert "case 1 is delivered, but its result goes nowhere" in told["residue"]


def test_a_comparison_is_told_in_words_or_for_programs(run: Run) -> None:
    assert "compared with nobody (no peer has query = true)" in run("reconcile", "--days", "3").output
    assert json.loads(run("reconcile", "--json").output)["missed"] == []


def test_retention_says_what_it_would_remove_and_what_it_removed(run: Run) -> None:
    assert run("retention", "--dry-run").output.startswith("Would remove: 0 images, 0 results")
    assert run("retention").output.startswith("Removed: 0 images, 0 results")
