"""Writing a file so that it survives a power cut: bytes, fsync, rename, fsync of the folder.

The order is the promise (docs/adr/0003): a name that a reader can see belongs to bytes that are on the disk.
"""

import os
from collections.abc import Iterable
from pathlib import Path


def write_durably(chunks: Iterable[bytes], temporary: Path, final: Path) -> None:
    """Write `chunks` to `temporary`, make them durable, then give them the name `final`.

    Both paths must be on one file system. Nothing is visible under `final` unless all of it is on disk.

    Raises:
        FileExistsError: `temporary` exists already.
        OSError: the disk refused; `temporary` is removed and `final` is untouched.
    """
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    try:
        with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123 - a descriptor has no path
            for chunk in chunks:
                write_all(file.fileno(), chunk)
            os.fsync(file.fileno())
        temporary.rename(final)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(final.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make `folder` and its parents, each durable in its own parent."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True, mode=0o750)
    sync_folder(folder.parent)


def write_all(descriptor: int, chunk: bytes | memoryview) -> None:
    """Write every byte of `chunk` where the descriptor stands.

    Raises:
        OSError: the disk refused.
    """
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]
