"""Small file systems of their own on this machine: a disk that can be full, or lose its power. They need root."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MIB = 1 << 20


def why_no_disk(folder: Path) -> str | None:
    """Why none can be made here, or None if one can."""
    try:
        with ext4_disk(folder / "probe", 16):
            return None
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"") or b""
        return f"no file system can be mounted here ({error} {said.decode(errors='replace').strip()}); it takes root"


@contextmanager
def ext4_disk(folder: Path, size_mb: int, *, mount_options: str = "") -> Iterator[Path]:
    """A journalled ext4 in a zeroed file; its blocks reach that file without the page cache in between.

    The file is `folder`/disk.img; yields where it is mounted.
    """
    folder.mkdir(parents=True)
    image, mounted = folder / "disk.img", folder / "mounted"
    with image.open("wb") as file:
        for _ in range(size_mb):
            file.write(bytes(_MIB))
    _run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
    with attached(image) as device, mount(device, mounted, mount_options):
        yield mounted


@contextmanager
def attached(image: Path, *, direct: bool = True) -> Iterator[str]:
    """A loop device over a file; direct, it bypasses the page cache of the file system that the file is on."""
    device = _run("losetup", "--find", "--show", *(["--direct-io=on"] if direct else []), image).strip()
    try:
        yield device
    finally:
        _run("losetup", "--detach", device)


@contextmanager
def mount(what: str | Path, folder: Path, options: str = "", kind: str = "ext4") -> Iterator[None]:
    """Mount a file system on a folder, which is made if it is not there."""
    folder.mkdir(exist_ok=True)
    _run("mount", "-t", kind, *(["-o", options] if options else []), what, folder)
    try:
        yield
    finally:
        _run("umount", folder)


def _run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
