"""The process that converts: confined before it loads anything that reads models, and heard by its last words alone.

In: one JSON object on standard input. Out: a line of JSON for each step, then one for the report or the refusal.
"""

import json
import os
import sys
from importlib import import_module
from typing import Any, TextIO

from appliance.errors import ModelRefused, Reason
from appliance.importing.confinement import (
    ForbiddenByConfinement,
    Limits,
    confine,
    forbid_programs_and_network,
)


def main() -> int:
    """Convert what standard input asks for."""
    task = json.load(sys.stdin)
    words = _own_output()
    try:
        confinement = confine(Limits(**task["limits"]))
        try:
            # Only now: torch starts threads, and a thread cannot be given another network afterwards.
            conversion = import_module("appliance.importing.conversion")
        except ModuleNotFoundError as error:
            raise ModelRefused(
                Reason.MODEL_INVALID,
                f"importing needs {error.name}, which is not installed; install delineate with its extra `import`",
            ) from error
        confinement.append(forbid_programs_and_network())
        report = conversion.convert(task, confinement, lambda step: _say(words, {"step": step}))
    except ModelRefused as refused:
        _say(words, {"refused": {"reason": refused.reason.value, "sentence": refused.sentence}})
        return 1
    except ForbiddenByConfinement as forbidden:
        sentence = f"the conversion wanted to reach out of its process ({forbidden}); it was ended and nothing imported"
        _say(words, {"refused": {"reason": Reason.MODEL_UNSAFE.value, "sentence": sentence}})
        return 1
    _say(words, {"report": report.model_dump(mode="json")})
    return 0


def _own_output() -> TextIO:
    """Standard output for us alone; what libraries print there goes to the errors."""
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return own


def _say(words: TextIO, value: dict[str, Any]) -> None:
    words.write(json.dumps(value) + "\n")
    words.flush()


if __name__ == "__main__":
    raise SystemExit(main())
