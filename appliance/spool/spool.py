"""The spool on disk. Names are always the appliance's own, never a peer's.

tmp/                    being written; swept at start
arrivals/               received and durable, not yet indexed: the queue is the folder
instances/ab/abcd….dcm  indexed, under the digest of their content
quarantine/             received, but not usable as an instance of any series
results/                objects that were made
parts/                  what one of several models found, until the structure set is made of all
notes/KIND/             small JSON messages from the listener, which needs no database to receive
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from appliance.clock import epoch_ns
from appliance.spool.durable import make_folder, sync_folder, write_durably

_OLD_NS = 3600 * 10**9
_FOLDERS = ("tmp", "arrivals", "instances", "quarantine", "results", "parts", "notes")


@dataclass(frozen=True, slots=True)
class Arrival:
    """A received object that is durable and waits to be indexed."""

    path: Path
    at: datetime
    digest: str  #: SHA-256, hexadecimal, of transfer syntax UID, NUL and the data set's bytes as received


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
        dead = [path for path in (self.root / "tmp").iterdir() if path.suffix == ".dcm" or _is_old(path)]
        for path in dead:
            path.unlink(missing_ok=True)
        return len(dead)

    def free_mb(self) -> int:
        """Space left on the spool's file system, in MiB."""
        return shutil.disk_usage(self.root).free >> 20

    def keep(self, preamble_and_meta: bytes, data_set: bytes, transfer_syntax_uid: str) -> Arrival:
        """Make a received object durable: when this returns, a power cut cannot lose it.

        Args:
            preamble_and_meta: the DICOM preamble and File Meta Information to write in front.
            data_set: the data set, byte for byte as received.
            transfer_syntax_uid: what the association says the bytes are encoded in.

        Raises:
            OSError: the disk is full or failing; nothing is kept and nothing is visible.
        """
        digest = hashlib.sha256(f"{transfer_syntax_uid}\0".encode())
        digest.update(data_set)
        name = f"{epoch_ns():020d}-{secrets.token_hex(4)}-{digest.hexdigest()}.dcm"
        final = self.root / "arrivals" / name
        write_durably((preamble_and_meta, data_set), self.root / "tmp" / name, final)
        return _arrival(final)

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
        make_folder(final.parent)
        with suppress(FileExistsError):
            os.link(arrival.path, final)
        sync_folder(final.parent)  # also when the name is there already: whoever gave it may have died before this

    def queue_again(self, path: Path, received_ns: int) -> None:
        """Have a lasting file indexed once more, under a second name in the queue: no row knows it."""
        final = self.root / "arrivals" / f"{received_ns:020d}-{secrets.token_hex(4)}-{path.stem}.dcm"
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


def _arrival(path: Path) -> Arrival:
    """What an arrival's name says: when it came, and the digest of its content."""
    nanoseconds, _, digest = path.stem.split("-")
    return Arrival(path, _moment(nanoseconds), digest)


def _moment(nanoseconds: str) -> datetime:
    return datetime.fromtimestamp(int(nanoseconds) / 1e9, UTC)


def _is_old(path: Path) -> bool:
    try:
        return epoch_ns() - path.stat().st_mtime_ns > _OLD_NS
    except FileNotFoundError:
        return False
