"""The configuration of a MONAI bundle as data.

MONAI builds whatever class a `_target_` names and evaluates whatever follows a `$` as Python. Here a configuration is
nested values with references between them; of the parts that are asked for, an expression is taken only if it is a
literal, and the others are never looked at.
"""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from appliance.errors import ModelRefused, Reason
from appliance.importing.sources import read_text
from appliance.importing.tensors import invalid

_MAX_DEPTH = 32
_SUSPICIOUS = ("__", "eval(", "exec(", "os.system", "popen", "subprocess", "socket", "shutil", "compile(", "pickle")
"""Words in expressions that no bundle needs to say how it segments."""


_REFERENCE = re.compile(r"\$?@([A-Za-z0-9_]+(?:(?:#|::)[A-Za-z0-9_]+)*)$")
"""MONAI's reference to another value; `$@name` is an expression that is nothing but one."""


class BundleConfig:
    """Values of a configuration file, with references resolved as they are asked for."""

    def __init__(self, values: dict[str, Any], name: str) -> None:
        self._values = values
        self._name = name
        for text in _texts(values):
            if text.startswith("$") and any(word in text for word in _SUSPICIOUS):
                raise _unsafe(name, text)

    def get(self, key: str, *, all_of_it: bool = True) -> Any:
        """The part under a key, everything in it resolved to plain values; None if there is none.

        Args:
            key: an upper key of the configuration.
            all_of_it: whether every value in it is needed. If not, expressions stay the texts that they are.

        Raises:
            ModelRefused: MODEL_UNSAFE if it holds an expression that is more than a literal; MODEL_INVALID if a
                reference leads nowhere.
        """
        return self._resolved(self._values[key], 0, strict=all_of_it) if key in self._values else None

    def expressions(self) -> list[str]:
        """The upper keys that hold expressions; none of them was evaluated."""
        return sorted(key for key, value in self._values.items() if any(text[:1] == "$" for text in _texts(value)))

    def _resolved(self, value: Any, depth: int, *, strict: bool) -> Any:
        if depth > _MAX_DEPTH:
            raise ModelRefused(Reason.MODEL_INVALID, f"{self._name} refers to itself; nothing was imported")
        if isinstance(value, dict):
            return {str(key): self._resolved(part, depth + 1, strict=strict) for key, part in value.items()}
        if isinstance(value, list):
            return [self._resolved(part, depth + 1, strict=strict) for part in value]
        if not isinstance(value, str) or value[:1] not in ("@", "$", "%"):
            return value
        if reference := _REFERENCE.match(value):
            return self._resolved(self._referred(reference[1]), depth + 1, strict=strict)
        literal = _literal(value)
        if literal is None and strict:
            raise _unsafe(self._name, value)
        return value if literal is None else literal

    def _referred(self, place: str) -> Any:
        found: Any = self._values
        for key in place.replace("::", "#").split("#"):
            if isinstance(found, dict) and key in found:
                found = found[key]
            elif isinstance(found, list) and key.isdigit() and int(key) < len(found):
                found = found[int(key)]
            else:
                raise ModelRefused(
                    Reason.MODEL_INVALID,
                    f"{self._name} refers to {place[:80]!r}, which is not there; nothing was imported",
                )
        return found


def read_config(path: Path) -> dict[str, Any]:
    """A JSON or YAML file as plain values; no tag of YAML makes anything else.

    Raises:
        ModelRefused: MODEL_UNSAFE for YAML that names Python objects; MODEL_INVALID for anything that is no object.
    """
    text = read_text(path)
    try:
        values = json.loads(text) if path.suffix == ".json" else _plain_yaml(text)
    except yaml.constructor.ConstructorError as error:
        raise _unsafe(path.name, str(error.problem)) from error
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise invalid(path, "is damaged, or no JSON or YAML") from error
    if not isinstance(values, dict):
        raise invalid(path, "holds no object")
    return values


def _literal(expression: str) -> Any:
    """The numbers, text or list that an expression spells out; None if it is more than that."""
    try:
        value = ast.literal_eval(expression[1:].strip()) if expression.startswith("$") else None
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None
    return list(value) if isinstance(value, tuple) else value


def _plain_yaml(text: str) -> Any:
    """Texts, numbers, lists and objects; no aliases, by which a few lines stand for any number of values."""
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
        raise yaml.YAMLError("aliases are not taken")
    return yaml.safe_load(text)


def _texts(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            yield part
        elif isinstance(part, dict):
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)


def _unsafe(name: str, text: str) -> ModelRefused:
    return ModelRefused(
        Reason.MODEL_UNSAFE,
        f"{name} wants {text[:80]!r} to be executed; nothing of a model is, and nothing was imported",
    )
