"""The spool on disk. Names are always the appliance's own, never a peer's.

tmp/                    being written; swept at start
slots/                  files of zeros that objects are received into (slots.py), and received objects not yet in:
arrivals/               received and durable, not yet indexed: the queue is the folder
instances/ab/abcd….dcm  indexed, under the digest of their content
quarantine/             received, but not usable as an instance of any series
results/                objects that were made
parts/                  what one of several models found, until the structure set is made of all
notes/KIND/             small JSON messages from the listener, which needs no database to receive
"""

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import cast

from appliance.clock import epoch_ns
from appliance.spool.durable import make_folder, sync_folder, write_durably
from appliance.spool.entry import PIECE, Buffer, Entry, FileEntry, SlotEntry, arrival_name
from appliance.spool.file_meta import read_syntax
from appliance.spool.frame import read_frame
from appliance.spool.slots import SlotPool

_HEAD_BYTES = 4096
_OLD_NS = 3600 * 10**9
_FOLDERS = ("tmp", "arrivals", "instances", "quarantine", "results", "parts", "notes", "slots")


@dataclass(frozen=True)
class Arrival:
    """A received object that is durable and waits to be indexed."""

    path: Path
    at: datetime

    @cached_property
    def digest(self) -> str:
        """SHA-256, hexadecimal, of transfer syntax UID, NUL and the data set's bytes as received.

        Raises:
            OSError: the file cannot be read.
        """
        return content_digest(self.path)


@dataclass(frozen=True, slots=True)
class Note:
    """A message from one process to another; removed when it has been acted on."""

    path: Path
    fields: dict[str, object]

    @property
    def at(self) -> datetime:
        """When it was left."""
        return _moment(self.path.name.partition("-")[0])


class Spool:
    """The spool under one root folder; all of it on one file system."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in _FOLDERS:
            make_folder(root / name)

    def sweep(self) -> int:
        """Remove what a dead process left half written; returns how many files. The listener calls it as it starts.

        Received objects are the listener's alone, so what is left of them is dead. Other processes may be writing
        notes and results at this moment; theirs are left alone until they are an hour old.
        """
        self._cut_padding()
        dead = [path for path in (self.root / "tmp").iterdir() if path.suffix == ".dcm" or _is_old(path)]
        for path in dead:
            path.unlink(missing_ok=True)
        return len(dead)

    def _cut_padding(self) -> None:
        """Cut off what a slot had behind its object, where a power cut undid that."""
        for path in (self.root / "arrivals").iterdir():
            with suppress(FileNotFoundError), path.open("r+b") as file:  # it may be indexed at this moment
                frame = read_frame(file.read(_HEAD_BYTES))
                if frame is not None and os.fstat(file.fileno()).st_size > frame.length:
                    file.truncate(frame.length)

    def free_mb(self) -> int:
        """Space left on the spool's file system, in MiB."""
        return shutil.disk_usage(self.root).free >> 20

    def begin(self, buffer: Buffer, file_meta: bytes, pool: SlotPool | None = None) -> Entry:
        """Begin to receive an object: into a slot when there is one, else into a file of its own.

        Args:
            buffer: the memory of the receiver.
            file_meta: DICM and File Meta Information to write in front (`file_meta.file_meta`).
            pool: the slots of the listener.

        Raises:
            OSError: the disk takes no further file.
        """
        claimed = pool.claim() if pool is not None else None
        if pool is not None and claimed is not None:
            return SlotEntry(buffer, file_meta, pool, claimed)
        return FileEntry(buffer, file_meta, self.root / "tmp", self.root / "arrivals")

    def keep(self, file_meta: bytes, data_set: bytes) -> Arrival:
        """Make an object durable that is whole in memory; see `begin` for one that is still arriving.

        Raises:
            OSError: the disk is full or failing; nothing is kept and nothing is visible.
        """
        entry = FileEntry(Buffer(), file_meta, self.root / "tmp", self.root / "arrivals")
        for start in range(0, len(data_set), PIECE):
            piece = data_set[start : start + PIECE]
            entry.room(len(piece))[:] = piece
            entry.advance(len(piece))
        entry.keep()
        return _arrival(cast(Path, entry.path))

    def hand_over(self, pool: SlotPool, number: int) -> None:
        """Make an arrival of the object in a slot; no data is copied, and it was durable before.

        Raises:
            OSError: the disk refused; the object stays in its slot.
        """
        path = pool.path(number)
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            frame = read_frame(os.pread(descriptor, _HEAD_BYTES, 0))
            if frame is None:
                raise OSError(errno.EIO, "a slot that was filled has no frame", path)
            os.ftruncate(descriptor, frame.length)
        finally:
            os.close(descriptor)
        path.rename(self.root / "arrivals" / arrival_name(frame.received_ns))
        pool.gone(number)

    def arrivals(self, limit: int | None = None) -> list[Arrival]:
        """The oldest objects not yet indexed, in order of arrival."""
        names = sorted(entry.name for entry in os.scandir(self.root / "arrivals"))[:limit]
        return [_arrival(self.root / "arrivals" / name) for name in names]

    def instance_path(self, digest: str) -> Path:
        """Where the instance with this content digest lies."""
        return self.root / "instances" / digest[:2] / f"{digest}.dcm"

    def quarantine_path(self, digest: str) -> Path:
        """Where an unusable object with this content digest lies."""
        return self.root / "quarantine" / f"{digest}.dcm"

    def settle(self, arrival: Arrival, final: Path) -> None:
        """Give an arrival its second, lasting name; the first stays until `release`.

        A crash between the two leaves both names, and the arrival is simply indexed again.
        """
        with arrival.path.open("rb") as file:
            os.fsync(file.fileno())  # its length: the padding of its slot was cut off after it was made durable
        make_folder(final.parent)
        with suppress(FileExistsError):
            os.link(arrival.path, final)
        sync_folder(final.parent)  # also when the name is there already: whoever gave it may have died before this

    def queue_again(self, path: Path, received_ns: int) -> None:
        """Have a lasting file indexed once more, under a second name in the queue: no row knows it."""
        final = self.root / "arrivals" / arrival_name(received_ns)
        os.link(path, final)
        sync_folder(final.parent)

    def release(self, arrival: Arrival) -> None:
        """Take an indexed arrival off the queue, once its row is committed."""
        arrival.path.unlink(missing_ok=True)

    def result(self, name: str) -> bytes | None:
        """An object that was made before, if it was."""
        path = self.root / "results" / name
        return path.read_bytes() if path.is_file() else None

    def keep_result(self, name: str, content: bytes) -> Path:
        """Make a result durable under results/`name`; the same name and content again change nothing."""
        final = self.root / "results" / name
        if self.result(name) != content:
            write_durably((content,), self.root / "tmp" / f"{secrets.token_hex(8)}.part", final)
        return final

    def part(self, name: str) -> bytes | None:
        """What a model found in a scan, if that is still kept."""
        try:
            return (self.root / "parts" / name).read_bytes()
        except FileNotFoundError:
            return None

    def keep_part(self, name: str, content: bytes) -> None:
        """Make what a model found durable under parts/`name`; whatever lay there is replaced."""
        write_durably((content,), self.root / "tmp" / f"{secrets.token_hex(8)}.part", self.root / "parts" / name)

    def drop_part(self, name: str) -> None:
        """Remove what a model found, once nobody needs it."""
        (self.root / "parts" / name).unlink(missing_ok=True)

    def leave_note(self, kind: str, fields: dict[str, object]) -> None:
        """Leave a durable message for another process."""
        folder = self.root / "notes" / kind
        make_folder(folder)
        name = f"{epoch_ns():020d}-{secrets.token_hex(4)}.json"
        write_durably((json.dumps(fields).encode(),), self.root / "tmp" / name, folder / name)

    def notes(self, kind: str) -> Iterator[Note]:
        """Messages of one kind, oldest first; the reader unlinks each `path` when done."""
        folder = self.root / "notes" / kind
        if folder.is_dir():
            for path in sorted(folder.iterdir()):
                yield Note(path, json.loads(path.read_bytes()))


def content_digest(path: Path) -> str:
    """SHA-256, hexadecimal, of a received object: transfer syntax UID, NUL and the data set's bytes.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        syntax, data_set_at = read_syntax(path)
    except ValueError:  # damaged since: it has no syntax any more, and is set aside under all of its bytes
        syntax, data_set_at = "", 0
    with path.open("rb") as file:
        file.seek(data_set_at)
        digest = hashlib.sha256(f"{syntax}\0".encode())
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _arrival(path: Path) -> Arrival:
    """What an arrival's name says: when it came."""
    return Arrival(path, _moment(path.stem.split("-")[0]))


def _moment(nanoseconds: str) -> datetime:
    return datetime.fromtimestamp(int(nanoseconds) / 1e9, UTC)


def _is_old(path: Path) -> bool:
    try:
        return epoch_ns() - path.stat().st_mtime_ns > _OLD_NS
    except FileNotFoundError:
        return False
