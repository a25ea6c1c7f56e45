"""What lies at the path that someone wants imported: plain files in plain folders, or it is not touched."""

import hashlib
import os
import stat
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from appliance.errors import ModelRefused, Reason

_MAX_FILES = 20_000
_MAX_BYTES = 64 * 2**30
_MAX_UNPACKED_BYTES = 16 * 2**30
_MAX_RATIO = 200
"""Weights hardly shrink by packing; what shrinks two hundredfold was made to."""
_CHUNK_BYTES = 2**20
_DESCRIPTIONS = {".json", ".yaml", ".yml", ".md", ".toml"}
_MAX_TEXT_BYTES = 16 * 2**20


def checked_source(source: Path) -> Path:
    """The source, if it is a file or a folder of plain files and folders.

    Raises:
        ModelRefused: MODEL_MISSING if nothing is there; MODEL_INVALID if it is empty or too large; MODEL_UNSAFE for
            links and special files.
    """
    try:
        root = source.resolve(strict=True)
    except OSError as error:
        raise ModelRefused(
            Reason.MODEL_MISSING, f"there is nothing to import under the name {source.name}; correct the path"
        ) from error
    files = size = 0
    for path, status in _walk(root):
        if stat.S_ISREG(status.st_mode):
            files, size = files + 1, size + status.st_size
        elif not stat.S_ISDIR(status.st_mode):
            raise _unsafe(f"{_within(path, root)} is a link or a special file")
        if files > _MAX_FILES or size > _MAX_BYTES:
            raise _invalid(root, f"has more than {_MAX_FILES} files or {_MAX_BYTES // 2**30} GiB")
    if not files or not size:
        raise _invalid(root, "is empty")
    return root


def unpacked(archive: Path, folder: Path) -> Path:
    """The folder that a zip archive holds, unpacked; its single folder, where it has only one.

    Raises:
        ModelRefused: MODEL_UNSAFE if an entry wants to lie elsewhere, is a link, or is larger than it looks;
            MODEL_INVALID if the archive is damaged.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            _check_entries(opened.infolist())
            for entry in opened.infolist():
                _unpack(opened, entry, folder / PurePosixPath(entry.filename))
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise _invalid(archive, "is a damaged or encrypted archive") from error
    except (OSError, ValueError) as error:
        raise _invalid(archive, "holds names that cannot be unpacked") from error
    inside = list(folder.iterdir())
    return checked_source(inside[0] if len(inside) == 1 and inside[0].is_dir() else folder)


def digests(root: Path, came_from: Iterable[str]) -> dict[str, str]:
    """sha256 of the named files and of every description in the source's upper folders, by path within it."""
    if root.is_file():
        return {root.name: _digest(root)}
    named = [root / name for name in came_from]
    upper = [*root.glob("*"), *root.glob("*/*")]
    texts = [path for path in upper if path.suffix.lower() in _DESCRIPTIONS]
    wanted = {path for path in [*named, *texts] if path.is_file()}
    return {_within(path, root): _digest(path) for path in sorted(wanted)}


def read_text(path: Path) -> str:
    """A description as text.

    Raises:
        ModelRefused: MODEL_INVALID if it is missing, huge or no text.
    """
    try:
        if path.stat().st_size > _MAX_TEXT_BYTES:
            raise _invalid(path, "is too large for a description")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise _invalid(path, "is missing") from error
    except ValueError as error:
        raise _invalid(path, "is no text") from error


def inside(root: Path, name: str) -> Path:
    """The file that a description names, if it lies in the source.

    Raises:
        ModelRefused: MODEL_UNSAFE if the name leads out of it; MODEL_INVALID if there is no such file.
    """
    path = root / name.replace("\0", "")
    # Links were refused before, so this alone decides: absolute names and dots lead where they lead.
    if not path.resolve().is_relative_to(root.resolve()):
        raise _unsafe(f"a file outside of the model is named ({name[:80]!r})")
    if not path.is_file():
        raise _invalid(root, f"names {name[:80]!r}, which is not there")
    return path


def _walk(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The root and what lies below it, links not followed."""
    waiting = [root]
    while waiting:
        path = waiting.pop()
        status = path.lstat()
        yield path, status
        if stat.S_ISDIR(status.st_mode):
            waiting.extend(path.iterdir())


def _check_entries(entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > _MAX_FILES or sum(entry.file_size for entry in entries) > _MAX_UNPACKED_BYTES:
        raise _unsafe(f"the archive unpacks to over {_MAX_FILES} files or {_MAX_UNPACKED_BYTES // 2**30} GiB")
    for entry in entries:
        name, mode = PurePosixPath(entry.filename), entry.external_attr >> 16
        if name.is_absolute() or ".." in name.parts or "\\" in entry.filename or ":" in name.parts[0]:
            raise _unsafe(f"the archive wants to write outside of its folder ({entry.filename[:80]!r})")
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _unsafe(f"the archive holds a link or a special file ({entry.filename[:80]!r})")
        if entry.file_size > _CHUNK_BYTES and entry.file_size > _MAX_RATIO * entry.compress_size:
            raise _unsafe(f"the archive holds a file that is far larger than it looks ({entry.filename[:80]!r})")


def _unpack(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    if entry.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    left = entry.file_size
    with opened.open(entry) as packed, target.open("xb") as file:
        while chunk := packed.read(_CHUNK_BYTES):
            left -= len(chunk)
            if left < 0:
                raise _unsafe(f"the archive holds a file that is larger than it says ({entry.filename[:80]!r})")
            file.write(chunk)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _within(path: Path, root: Path) -> str:
    return path.name if path == root else path.relative_to(root).as_posix()


def _unsafe(what: str) -> ModelRefused:
    return ModelRefused(Reason.MODEL_UNSAFE, f"{what}; get the model again from a source that you trust")


def _invalid(path: Path, what: str) -> ModelRefused:
    return ModelRefused(Reason.MODEL_INVALID, f"{path.name} {what}; get the model again from its source")
