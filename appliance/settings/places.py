"""Where in a configuration file something stands: `tomllib` knows no lines, and an operator needs one."""

import tomllib
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from appliance.errors import SettingsError

Key = str | int
"""A key of a table, or the number of an item of a list."""


class Mistake(ValueError):
    """What a file says does not agree with itself or with the other files.

    Attributes:
        keys: where in its file it stands, from the outermost table inwards.
        word: what to look for there, when a list goes over several lines.
        file: the name of the file's contents in `Settings`, such as ("protocols", "pelvis"); empty where the reader
            knows already which file it reads.
    """

    def __init__(self, sentence: str, keys: Sequence[Key], *, word: str = "", file: tuple[str, ...] = ()) -> None:
        super().__init__(sentence)
        self.keys = tuple(keys)
        self.word = word
        self.file = file


@dataclass(frozen=True)
class TomlFile:
    """A configuration file as it was read.

    Attributes:
        name: as the operator knows it, from the configuration folder.
        text: all of it.
        tables: the same, understood.
    """

    name: str
    text: str
    tables: dict[str, Any]

    @classmethod
    def read(cls, folder: Path, name: str) -> Self:
        """Read a file that must be there.

        Raises:
            SettingsError: it cannot be read or is no TOML; the message names it, and the line where it is known.
        """
        try:
            text = (folder / name).read_text(encoding="utf-8")
            return cls(name, text, tomllib.loads(text))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SettingsError(f"{folder / name}: {error}") from error

    @classmethod
    def read_if_there(cls, folder: Path, name: str) -> Self:
        """Read a file that may be missing; it is empty then."""
        return cls.read(folder, name) if (folder / name).is_file() else cls(name, "", {})

    def place(self, keys: Sequence[Key], word: str = "") -> str:
        """Name the file and, as far as the keys lead anywhere in it, the line."""
        line = line_of(self.text, keys, word)
        return self.name if line is None else f"{self.name}, line {line}"


def line_of(text: str, keys: Sequence[Key], word: str = "") -> int | None:
    """Find the line on which a key, a table or an item of a list of tables stands.

    Only whole statements can be understood, so the text is understood again and again up to the end of one statement:
    the first statement with which the keys lead somewhere is the one.

    Args:
        text: a whole TOML file that is in order.
        keys: from the outermost table inwards; what does not exist at the end of them is left out.
        word: a text in quotes to look for within a statement of several lines.

    Returns:
        The line, counted from one; None when not even the first key exists.
    """
    keys = keys[: _depth(tomllib.loads(text), keys)]
    names = [key for key in keys if isinstance(key, str)]
    if not names:
        return None
    lines = text.split("\n")
    mentions = [number for number, line in enumerate(lines) if names[-1] in line]
    first = mentions[bisect_left(mentions, len(keys), key=lambda number: _depth(_up_to(lines, number)[1], keys))]
    end, _ = _up_to(lines, first)
    quoted = (f'"{word}"', f"'{word}'")
    named = (number for number in range(first, end) if word and any(each in lines[number] for each in quoted))
    return 1 + next(named, first)


def _up_to(lines: Sequence[str], number: int) -> tuple[int, dict[str, Any]]:
    """Understand the file up to the end of the statement on a line; return how many lines that took, and the tables."""
    for end in range(number + 1, len(lines)):
        try:
            return end, tomllib.loads("\n".join(lines[:end]))
        except tomllib.TOMLDecodeError:  # the statement goes on
            continue
    return len(lines), tomllib.loads("\n".join(lines))


def _depth(tables: Any, keys: Sequence[Key]) -> int:
    """How many of the keys lead somewhere."""
    for depth, key in enumerate(keys):
        inside = isinstance(tables, dict) and key in tables
        if not inside and not (isinstance(tables, list) and isinstance(key, int) and key < len(tables)):
            return depth
        tables = tables[key]
    return len(keys)
