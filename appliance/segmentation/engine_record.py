"""What the gate found out, kept on disk, so that a restart does not pay for it again and `doctor` can show it."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from appliance.segmentation.parity import Outcome

FORMAT = 1
"""Changes with whatever makes older findings worthless: the reference tiles, the limits of the gate."""


class EngineRecord:
    """A small JSON file: what was found about each engine, and what each model runs on.

    A file that cannot be read or written is as good as none: then everything is found out again.

    Args:
        path: of the file; made when something is first kept. None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def outcome(self, package_digest: str, key: str) -> Outcome | None:
        """What is known about an engine for a model; None if nothing is."""
        known = self._of(package_digest).get("engines", {}).get(key)
        try:
            return None if known is None else Outcome(**known)
        except TypeError:  # another release's
            return None

    def keep(self, package_digest: str, key: str, outcome: Outcome) -> None:
        """Keep what was found; the file is replaced as a whole."""
        if outcome.lasting:
            engines = {**self._of(package_digest).get("engines", {}), key: asdict(outcome)}
            self._change(package_digest, {"engines": engines})

    def runs_on(self, package_digest: str) -> str | None:
        """What a model ran on when it was last loaded, and why on nothing faster, in words."""
        words = self._of(package_digest).get("runs_on")
        return words if isinstance(words, str) else None

    def note(self, package_digest: str, words: str) -> None:
        """Keep what a model runs on now."""
        if words != self.runs_on(package_digest):
            self._change(package_digest, {"runs_on": words})

    def _of(self, package_digest: str) -> Mapping[str, Any]:
        found = self._all().get(package_digest, {})
        return found if isinstance(found, dict) else {}

    def _all(self) -> dict[str, Any]:
        if self._path is None:
            return {}
        try:
            raw = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return raw["models"] if isinstance(raw, dict) and raw.get("format") == FORMAT and "models" in raw else {}

    def _change(self, package_digest: str, values: Mapping[str, Any]) -> None:
        if self._path is None:
            return
        everything = {**self._all(), package_digest: {**self._of(package_digest), **values}}
        with suppress(OSError):  # who may not write here, or finds the disk full, can segment all the same
            self._path.parent.mkdir(parents=True, exist_ok=True)
            new = self._path.with_name(f"{self._path.name}.{os.getpid()}")
            new.write_text(json.dumps({"format": FORMAT, "models": everything}, indent=1))
            new.replace(self._path)
