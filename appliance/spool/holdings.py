"""What lies in the spool: lasting files by the name of their row, whether they are intact, and their removal."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from appliance.spool.durable import sync_folder
from appliance.spool.spool import Spool, content_digest


class Kind(StrEnum):
    """Kinds of lasting files, by the folder that they are in."""

    IMAGE = "instances"
    ASIDE = "quarantine"
    RESULT = "results"


@dataclass(frozen=True, slots=True)
class Held:
    """One lasting file.

    Attributes:
        name: of its row: the digest of an object, or the file name of a result.
        written_ns: when its bytes were last written, nanoseconds since 1970.
    """

    kind: Kind
    name: str
    path: Path
    written_ns: int


def held(spool: Spool) -> Iterator[Held]:
    """Every lasting file, in no order."""
    for kind in Kind:
        for folder, _, names in os.walk(spool.root / kind):
            for name in names:
                path = Path(folder, name)
                with suppress(FileNotFoundError):
                    yield Held(kind, name if kind is Kind.RESULT else path.stem, path, path.stat().st_mtime_ns)


def path_of(spool: Spool, kind: Kind, name: str) -> Path:
    """Where the file of a row lies."""
    if kind is Kind.IMAGE:
        return spool.instance_path(name)
    return spool.quarantine_path(name) if kind is Kind.ASIDE else spool.root / "results" / name


def remove(path: Path) -> None:
    """Remove a lasting file, durably; one that is gone already is no mistake."""
    path.unlink(missing_ok=True)
    if path.parent.is_dir():
        sync_folder(path.parent)


def is_intact(path: Path, digest: str) -> bool:
    """Whether a received object still has the content that its digest names (`Arrival.digest`).

    Raises:
        OSError: it is not there, or cannot be read.
    """
    return content_digest(path) == digest
