"""The chain over the trail: each event is bound to all that came before it by a hash.

`append` collects the events of a transaction. They are written when it commits, after all its other rows: then the
chain's end is locked, each event gets the next number and its hash, and the new end is written down. Nobody waits for
the chain's end longer than a commit takes, and as it is always the last thing locked, nobody waits in a circle.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Select, String, Text, bindparam, cast, event, insert, select, type_coerce, update
from sqlalchemy.orm import Session

from appliance.records.tables import AuditEvent, AuditHead, Base

START = "0" * 64
"""What the first event follows."""

_WAITING = "audit events of this transaction"

# on tables rather than classes, and made once: every transaction pays for these three
_HEAD = Base.metadata.tables[AuditHead.__tablename__]
_LOCK_HEAD = select(_HEAD.c.seq, _HEAD.c.hash).with_for_update()
_MOVE_HEAD = update(_HEAD).values(seq=bindparam("new_seq"), hash=bindparam("new_hash"))
_INSERT = insert(Base.metadata.tables[AuditEvent.__tablename__])


@dataclass(frozen=True, slots=True)
class ChainLink:
    """One event exactly as it is bound into the chain.

    Attributes:
        seq: its number, from 1, without a gap.
        at: the instant, as `instant` writes it.
        fields: its facts, the JSON text to the letter.
        previous: hash of the event before it.
        hash: its own.
    """

    seq: Any
    at: Any
    case_id: Any
    event: Any
    actor: Any
    fields: Any
    previous: Any
    hash: Any

    def computed_hash(self, *, previous: str | None = None, seq: int | None = None) -> str:
        """The hash that it ought to have, at its own place or at another.

        SHA-256 of one JSON array in the form of RFC 8785: previous hash, number, instant, case, event, actor and
        fields. Only texts, whole numbers and null, so that every language writes it alike.
        """
        follows = self.previous if previous is None else previous
        place = self.seq if seq is None else seq
        bound = [follows, place, self.at, self.case_id, self.event, self.actor, self.fields]
        # whatever stands in a row that was tampered with has a text, if a wrong one
        text = json.dumps(bound, ensure_ascii=False, separators=(",", ":"), default=repr)
        return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def instant(at: object) -> str:
    """An instant as it is bound: UTC, six decimals; what is no instant stays as it is found."""
    if isinstance(at, str):  # SQLite keeps texts; one that only means the same was tampered with
        text = at
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            return text
        if at.isoformat(" ", "microseconds") != text:
            return text
    if not isinstance(at, datetime):
        return repr(at)
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def fields_text(fields: Mapping[str, Any]) -> str:
    """The facts of an event as they are stored and bound; every JSON column is written by this."""
    return json.dumps(fields)


def linked(seq: int, previous: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of audit_events, bound to the one before it.

    Args:
        seq: its number.
        previous: hash of the one before it.
        row: at, case_id, event, actor and fields.
    """
    text = fields_text(row["fields"])
    link = ChainLink(seq, instant(row["at"]), row["case_id"], row["event"], row["actor"], text, previous, None)
    return {**row, "id": seq, "previous": previous, "hash": link.computed_hash()}


def append(tx: Session, at: datetime, case_id: int | None, event_name: str, actor: str, fields: dict[str, Any]) -> None:
    """Add an event to those that this transaction writes when it commits.

    Raises:
        RuntimeError: within a savepoint, which could be undone without the event.
    """
    if tx.in_nested_transaction():
        raise RuntimeError("an event cannot be recorded within a savepoint")
    row = {"at": at, "case_id": case_id, "event": event_name, "actor": actor, "fields": fields}
    tx.info.setdefault(_WAITING, []).append(row)


def links() -> Select[*tuple[Any, ...]]:
    """All events in order, as they are stored; read one by one by `link_of`."""
    raw_fields, raw_at = cast(AuditEvent.fields, Text), type_coerce(AuditEvent.at, String)
    return select(
        AuditEvent.id,
        raw_at,
        AuditEvent.case_id,
        AuditEvent.event,
        AuditEvent.actor,
        raw_fields,
        AuditEvent.previous,
        AuditEvent.hash,
    ).order_by(AuditEvent.id)


def link_of(row: Any) -> ChainLink:
    """One row of `links`."""
    return ChainLink(row[0], instant(row[1]), *row[2:])


@event.listens_for(Session, "before_commit")
def _seal(tx: Session) -> None:
    """Write the events that were collected, as the last thing before the commit."""
    if not tx.info.get(_WAITING) or tx.in_nested_transaction():
        return
    tx.flush()
    connection = tx.connection()
    seq, previous = connection.execute(_LOCK_HEAD).one()
    rows = []
    for waiting in tx.info.pop(_WAITING):
        seq += 1
        rows.append(linked(seq, previous, waiting))
        previous = rows[-1]["hash"]
    connection.execute(_INSERT, rows)
    connection.execute(_MOVE_HEAD, {"new_seq": seq, "new_hash": previous})


@event.listens_for(Session, "after_rollback")
def _forget(tx: Session) -> None:
    tx.info.pop(_WAITING, None)
