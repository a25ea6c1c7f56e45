"""Trails to prove or to tamper with."""

from datetime import timedelta
from pathlib import Path

from appliance.audit import trail
from appliance.audit.signing import AuditFolders, fingerprint, public_key, signed_heads
from appliance.audit.verifying import Verdict, verify
from appliance.records import Database
from appliance.settings import Settings
from tests.support.rows import NOON


def fill(database: Database, events: int, case_id: int | None = None, *, at_once: int = 50) -> None:
    """So many events of all sorts, in transactions of several."""
    for first in range(0, events, at_once):
        with database.transaction() as tx:
            for number in range(first, min(first + at_once, events)):
                at = NOON + timedelta(seconds=number, microseconds=number)
                cost = {"seconds": number / 7, "cpu_s": 1e-7 * number, "folds": 5}
                fields = {"model": "Müller \u2028 \U0001f600", "version": "1", **cost, "sizes": [number, None, 0.1]}
                trail.record(tx, "segmented", at=at, actor="worker-ä", case_id=case_id, **fields)


def verified(database: Database, settings: Settings | None = None) -> Verdict:
    """What a walk along the chain finds, with the box's own heads and keys where there is a box."""
    if settings is None:
        return verify(database, [], {})
    folders = AuditFolders(settings.data_dir)
    keys = [public_key(path) for path in _pems(folders.public_keys)]
    return verify(database, signed_heads(database, folders.heads), {fingerprint(key): key for key in keys})


def _pems(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.pem"))
