"""Signing the end of the chain: once a day in UTC, and whenever an operator asks.

Whoever may write to the database can compute a whole new chain. What was signed and copied elsewhere stands against it:
each signed head says how the trail ended at that moment, and is written to a file beside its row.
"""

import base64
import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import structlog
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from sqlalchemy import select

from appliance.audit import trail
from appliance.errors import ApplianceError
from appliance.records import Database
from appliance.records.tables import AuditHead, SignedHead
from appliance.settings import Settings
from appliance.spool.durable import make_folder, sync_folder, write_durably

log = structlog.get_logger()


class KeyUnusable(ApplianceError):
    """A key or a signed head cannot be read; the message names the file."""


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the chain at some moment, and who vouches for it.

    Attributes:
        day: when, in UTC, YYYY-MM-DD.
        seq: number of the last event; 0 when there was none.
        hash: its hash.
        events: how many events there were.
        station: `appliance.station_name`.
        key: SHA-256 of the public key that it was signed with, in hexadecimal.
        signature: Ed25519, base64.
    """

    day: str
    seq: int
    hash: str
    events: int
    station: str
    key: str = ""
    signature: str = ""

    def signed_bytes(self) -> bytes:
        """What the signature is of: a JSON array in the form of RFC 8785."""
        parts = [self.day, self.seq, self.hash, self.events, self.station]
        return json.dumps(parts, ensure_ascii=False, separators=(",", ":")).encode()

    def is_signed_by(self, key: Ed25519PublicKey) -> bool:
        """Whether the signature is of this key and of these bytes."""
        try:
            key.verify(base64.b64decode(self.signature), self.signed_bytes())
        except (InvalidSignature, ValueError):
            return False
        return True

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read an exported head.

        Raises:
            KeyUnusable: it cannot be read.
        """
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{field.name: told[field.name] for field in fields(cls)})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise KeyUnusable(f"{path} is no signed head ({error}); take the copy that was kept elsewhere") from error

    @classmethod
    def from_row(cls, row: SignedHead) -> Self:
        """What a row says."""
        return cls(**{field.name: getattr(row, field.name) for field in fields(cls)})


class AuditFolders:
    """Where keys and signed heads are, in the data folder."""

    def __init__(self, data_dir: Path) -> None:
        self.private_key = data_dir / "keys" / "audit-signing.pem"
        self.heads = data_dir / "audit" / "heads"
        self.public_keys = data_dir / "audit" / "public-keys"


class HeadSigner:
    """Signs the end of the chain with the key of this box, which it makes when there is none."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._station = settings.appliance.station_name
        self._database = database
        self._folders = AuditFolders(settings.data_dir)
        self._exported = False

    def sign_daily(self, now: datetime) -> Head | None:
        """Sign when nothing was signed on this day in UTC; files that are missing are written again."""
        day = _day(now)
        with self._database.reading() as tx:
            done = tx.scalar(select(SignedHead.id).where(SignedHead.day == day).limit(1))
        head = self.sign(now) if done is None else None
        if not self._exported:
            self.export()
        return head

    def sign(self, now: datetime) -> Head:
        """Sign the end of the chain as it is now, and export it.

        Raises:
            KeyUnusable: the key of this box cannot be read.
            DatabaseUnavailable: the database is away; nothing was signed.
        """
        key = private_key(self._folders)
        with self._database.transaction() as tx:
            end = tx.execute(select(AuditHead).with_for_update()).scalar_one()
            head = Head(_day(now), end.seq, end.hash, end.seq, self._station, fingerprint(key.public_key()))
            signature = base64.b64encode(key.sign(head.signed_bytes())).decode()
            row = SignedHead(**{**asdict(head), "signature": signature})
            tx.add(row)
            told: dict[str, Any] = {"day": head.day, "seq": head.seq, "hash": head.hash}
            trail.record(tx, "trail_signed", at=now, actor="caretaker", **told)
        self.export()
        log.info("trail_signed", day=head.day, seq=head.seq)
        return Head.from_row(row)

    def export(self) -> None:
        """Write every signed head that has no file yet.

        Raises:
            OSError: the disk refused.
        """
        self._exported = False
        make_folder(self._folders.heads)
        with self._database.reading() as tx:
            heads = [Head.from_row(row) for row in tx.scalars(select(SignedHead).order_by(SignedHead.id))]
        for head in heads:
            name = f"{head.day}-{head.seq:012d}.json"
            if not (self._folders.heads / name).exists():
                _replace(self._folders.heads / name, json.dumps(asdict(head), indent=1).encode() + b"\n")
        self._exported = True


def private_key(folders: AuditFolders) -> Ed25519PrivateKey:
    """The key of this box; made, for its owner's eyes alone, when there is none.

    Raises:
        KeyUnusable: it is there and cannot be read.
        OSError: it cannot be made.
    """
    path = folders.private_key
    if not path.exists():
        _make_key(path)
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError) as error:
        raise KeyUnusable(f"{path} cannot be read ({error}); restore it from the backup") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyUnusable(f"{path} is no Ed25519 key; restore it from the backup")
    public = folders.public_keys / f"{fingerprint(key.public_key())}.pem"
    if not public.exists():
        make_folder(public.parent)
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        _replace(public, key.public_key().public_bytes(serialization.Encoding.PEM, form))
    return key


def public_key(path: Path) -> Ed25519PublicKey:
    """Read a public key.

    Raises:
        KeyUnusable: the file is none.
    """
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise KeyUnusable(f"{path} is no public key ({error})") from error
    if not isinstance(key, Ed25519PublicKey):
        raise KeyUnusable(f"{path} is no Ed25519 key")
    return key


def fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 of a public key, in hexadecimal."""
    form = serialization.PublicFormat.Raw
    return hashlib.sha256(key.public_bytes(serialization.Encoding.Raw, form)).hexdigest()


def _make_key(path: Path) -> None:
    """Two processes that start at once make one key: the second finds that of the first."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    secret = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    mine = path.with_name(f".{path.name}.{os.getpid()}")
    mine.unlink(missing_ok=True)  # of a process of this number that died here
    descriptor = os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor has no path
        file.write(secret)
        file.flush()
        os.fsync(file.fileno())
    with suppress(FileExistsError):
        path.hardlink_to(mine)
    mine.unlink()
    sync_folder(path.parent)


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    write_durably([content], temporary, path)


def _day(now: datetime) -> str:
    return now.astimezone(UTC).date().isoformat()


def signed_heads(database: Database, folder: Path | None) -> list[Head]:
    """Every signed head that is known, in rows and in files, in order of the chain.

    Raises:
        KeyUnusable: a file is none.
    """
    with database.reading() as tx:
        heads: set[Head] = {Head.from_row(row) for row in tx.scalars(select(SignedHead))}
    paths = sorted(folder.glob("*.json")) if folder is not None and folder.is_dir() else []
    heads |= {Head.from_file(path) for path in paths}
    return sorted(heads, key=lambda head: (head.seq, head.day))
