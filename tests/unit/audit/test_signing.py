"""Signed heads: what was signed and kept elsewhere stands against somebody who computes a whole new trail."""

import json
import shutil
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select, text

from appliance.audit.signing import AuditFolders, HeadSigner, KeyUnusable, signed_heads
from appliance.audit.verifying import Break, Fault
from appliance.records import Database
from appliance.records.chain import START, linked
from appliance.records.tables import AuditEvent, SignedHead
from appliance.settings import Settings
from tests.support.config_folder import make_settings
from tests.support.rows import NOON
from tests.support.trails import fill, verified

DAY = timedelta(days=1)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_settings(tmp_path)


def test_a_trail_with_signed_heads_is_whole(database: Database, settings: Settings) -> None:
    signer = HeadSigner(settings, database)
    signer.sign(NOON)
    fill(database, 5)
    signer.sign(NOON + DAY)
    verdict = verified(database, settings)
    assert (verdict.events, verdict.heads, verdict.broken) == (7, 2, None)


def test_it_is_signed_once_a_day_in_utc_whatever_the_clock_does(database: Database, settings: Settings) -> None:
    signer = HeadSigner(settings, database)
    almost_midnight = NOON.replace(hour=23, minute=59)
    for at in (NOON, almost_midnight, almost_midnight + timedelta(minutes=2), NOON - DAY, NOON, NOON + DAY, NOON - DAY):
        signer.sign_daily(at)
    days = [head.day for head in signed_heads(database, None)]
    assert days == ["2026-01-02", "2026-01-03", "2026-01-01"]
    assert verified(database, settings).broken is None


def test_the_key_is_for_its_owner_alone_and_is_made_once(database: Database, settings: Settings) -> None:
    HeadSigner(settings, database).sign(NOON)
    path = AuditFolders(settings.data_dir).private_key
    first = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    HeadSigner(settings, database).sign(NOON + DAY)
    assert path.read_bytes() == first
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_key_that_cannot_be_read_is_said_in_words_and_not_replaced(database: Database, settings: Settings) -> None:
    path = AuditFolders(settings.data_dir).private_key
    path.parent.mkdir(parents=True)
    path.write_text("damaged")
    with pytest.raises(KeyUnusable, match="restore it from the backup"):
        HeadSigner(settings, database).sign(NOON)
    assert path.read_text() == "damaged"


def test_a_head_whose_file_is_gone_is_written_again_by_the_next_process(database: Database, settings: Settings) -> None:
    HeadSigner(settings, database).sign(NOON)
    (file,) = AuditFolders(settings.data_dir).heads.iterdir()
    content = file.read_text()
    file.unlink()
    assert HeadSigner(settings, database).sign_daily(NOON) is None
    assert file.read_text() == content


def test_a_trail_computed_anew_contradicts_what_was_signed(database: Database, settings: Settings) -> None:
    fill(database, 4)
    HeadSigner(settings, database).sign(NOON)
    fill(database, 6)
    HeadSigner(settings, database).sign(NOON + DAY)
    fill(database, 3)
    _compute_anew(database, changed=8)
    assert verified(database).broken is None, "nothing but the signatures can tell"
    broken = verified(database, settings).broken
    assert broken is not None
    assert (broken.fault, broken.seq) == (Fault.REWRITTEN, 5)


def test_a_trail_cut_off_cleanly_contradicts_what_was_signed_and_kept_elsewhere(
    database: Database, settings: Settings
) -> None:
    fill(database, 10)
    HeadSigner(settings, database).sign(NOON)
    with database.engine.begin() as connection:
        for trigger in ("audit_events_no_delete", "audit_signed_heads_no_delete"):
            connection.execute(text(f"DROP TRIGGER {trigger}"))
        connection.execute(text("DELETE FROM audit_events WHERE id > 7"))
        connection.execute(text("DELETE FROM audit_signed_heads"))
        last = "(SELECT hash FROM audit_events WHERE id = 7)"
        connection.execute(text(f"UPDATE audit_head SET seq = 7, hash = {last}"))  # noqa: S608
    assert verified(database).broken is None
    words = "the trail is cut off: from event 8 on, at least 3 events that were there are gone"
    assert verified(database, settings).broken == Break(8, Fault.CUT_OFF, words)


@pytest.mark.parametrize("field", ["day", "seq", "hash", "events", "station", "signature"])
def test_whatever_is_changed_in_a_signed_head_its_signature_fails(
    database: Database, settings: Settings, field: str
) -> None:
    fill(database, 4)
    HeadSigner(settings, database).sign(NOON)
    (file,) = AuditFolders(settings.data_dir).heads.iterdir()
    head = json.loads(file.read_text())
    head[field] = head[field] + 1 if isinstance(head[field], int) else "A" + head[field][1:]
    file.write_text(json.dumps(head))
    broken = verified(database, settings).broken
    assert broken is not None
    assert broken.fault is Fault.HEAD_FORGED


def test_a_head_signed_with_another_key_does_not_count(database: Database, settings: Settings) -> None:
    fill(database, 4)
    HeadSigner(settings, database).sign(NOON)
    folders = AuditFolders(settings.data_dir)
    shutil.rmtree(folders.public_keys)
    folders.public_keys.mkdir()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    other = Ed25519PrivateKey.generate().public_key().public_bytes(serialization.Encoding.PEM, form)
    (folders.public_keys / "other.pem").write_bytes(other)
    broken = verified(database, settings).broken
    assert broken is not None
    assert "none of yours" in broken.words


def test_a_file_that_is_no_head_is_named(database: Database, settings: Settings) -> None:
    HeadSigner(settings, database).sign(NOON)
    (file,) = AuditFolders(settings.data_dir).heads.iterdir()
    file.write_text("{}")
    with pytest.raises(KeyUnusable, match=file.name):
        verified(database, settings)


def _compute_anew(database: Database, changed: int) -> None:
    """One event is changed and all hashes are computed again, that of the end too."""
    with database.engine.begin() as connection:
        connection.execute(text("DROP TRIGGER audit_events_no_update"))
        table = AuditEvent.__table__
        previous, seq = START, 0
        for row in connection.execute(select(table).order_by(table.c.id)).mappings().all():
            told = {**row, "actor": "nobody"} if row["id"] == changed else dict(row)
            seq = row["id"]
            bound = linked(seq, previous, {key: told[key] for key in ("at", "case_id", "event", "actor", "fields")})
            connection.execute(table.update().where(table.c.id == seq).values(**bound))
            previous = bound["hash"]
        connection.execute(text("UPDATE audit_head SET hash = :hash"), {"hash": previous})


def test_a_head_is_a_row_as_well_as_a_file(database: Database, settings: Settings) -> None:
    HeadSigner(settings, database).sign(NOON)
    with database.reading() as tx:
        assert tx.scalars(select(SignedHead.day)).all() == ["2026-01-02"]
    assert len(signed_heads(database, AuditFolders(settings.data_dir).heads)) == 1
