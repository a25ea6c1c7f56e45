"""Breaking a promise on purpose, in a copy of the project, to see whether its tests notice."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_COPIED = ("appliance", "tests", "configs", "pyproject.toml")
_LINKED = ("models", "docs", "ops", "README.md", "docker-compose.yml")
_WITHIN_S = 240.0


@dataclass(frozen=True)
class Saboteur:
    """A small change that breaks a promise.

    Attributes:
        name: what it does, in words.
        promise: which it breaks.
        changes: file below `appliance/`, the exact text there, what takes its place.
        tests: those of which one has to fail, below `tests/`.
    """

    name: str
    promise: str
    changes: tuple[tuple[str, str, str], ...]
    tests: tuple[str, ...]

    def __str__(self) -> str:
        return self.name


class Workshop:
    """A copy of the project, in which one saboteur after another does its work; the tree is never touched."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "project"
        self._folder.mkdir()
        for name in _COPIED:
            source, target = ROOT / name, self._folder / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        for name in _LINKED:
            (self._folder / name).symlink_to(ROOT / name)

    def sabotage(self, saboteur: Saboteur) -> "Verdict":
        """Make its changes, run its tests, and undo them.

        Raises:
            AssertionError: the text that it changes is no longer there, or more than once.
        """
        kept = {file: (self._folder / "appliance" / file).read_text() for file, _, _ in saboteur.changes}
        try:
            for file, text, replacement in saboteur.changes:
                path = self._folder / "appliance" / file
                source = path.read_text()
                assert source.count(text) == 1, f"{saboteur}: {source.count(text)} times in {file}, adapt it:\n{text}"
                path.write_text(source.replace(text, replacement))
            return self.run(saboteur.tests)
        finally:
            for file, source in kept.items():
                (self._folder / "appliance" / file).write_text(source)

    def run(self, tests: Sequence[str]) -> "Verdict":
        """Run these tests on the copy as it stands."""
        hidden = {"CI", "PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST", "PYTEST_XDIST_WORKER"}
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        environment |= {"PYTHONPATH": str(self._folder), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *(f"tests/{t}" for t in tests)]
        told = subprocess.run(
            command, cwd=self._folder, env=environment, capture_output=True, text=True, timeout=_WITHIN_S, check=False
        )
        return Verdict(told.returncode, told.stdout + told.stderr)


@dataclass(frozen=True)
class Verdict:
    """What the tests said."""

    code: int
    output: str

    @property
    def passed(self) -> bool:
        """Every test passed, and none was skipped."""
        return self.code == 0 and re.search(r"\d+ passed", self.output) is not None and "skipped" not in self.output

    @property
    def caught(self) -> bool:
        """A test failed: not an import, not a fixture."""
        return self.code == 1 and re.search(r"\d+ failed", self.output) is not None
