"""audit chain: earlier events are bound into it as they stand, and no event can be changed or removed any more."""

from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op
from sqlalchemy.engine import RowMapping

from appliance.records.chain import START, linked
from appliance.records.tables import UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_APPEND_ONLY = ("audit_events", "audit_signed_heads")
_AT_ONCE = 1000


def upgrade() -> None:
    """Bring the schema forward; events keep their order and get numbers without a gap."""
    op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "audit_signed_heads",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("day", sa.String(length=10), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("events", sa.Integer(), nullable=False),
        sa.Column("station", sa.String(length=16), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("signature", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "audit_cursors",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    chained = _new_table(
        sa.Column("previous", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        autoincrement=False,
    )
    seq, previous = 0, START
    for rows in _batches():
        bound = []
        for row in rows:
            seq += 1
            bound.append(linked(seq, previous, dict(row)))
            previous = bound[-1]["hash"]
        op.bulk_insert(chained, bound)
    head = sa.table("audit_head", sa.column("id"), sa.column("seq"), sa.column("hash"))
    op.bulk_insert(head, [{"id": 1, "seq": seq, "hash": previous}])
    _put_in_place()
    for table in _APPEND_ONLY:
        _refuse_changes(table)


def downgrade() -> None:
    """Take the schema back; what bound the events is forgotten."""
    for table in _APPEND_ONLY:
        _allow_changes(table)
    plain = _new_table(autoincrement=True)
    for rows in _batches():
        op.bulk_insert(plain, [dict(row) for row in rows])
    _put_in_place()
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "SELECT setval(pg_get_serial_sequence('audit_events', 'id'), (SELECT max(id) FROM audit_events)) "
            "WHERE EXISTS (SELECT 1 FROM audit_events)"
        )
        op.execute("DROP FUNCTION audit_is_append_only()")
    for table in ("audit_cursors", "audit_signed_heads", "audit_head"):
        op.drop_table(table)


def _new_table(*columns: sa.Column[str], autoincrement: bool) -> sa.Table:
    """Events in another form, beside those that are there."""
    return op.create_table(
        "audit_events_new",
        sa.Column("id", sa.Integer(), autoincrement=autoincrement, nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("case_id", sa.Integer(), nullable=True),
        sa.Column("event", sa.String(length=40), nullable=False),
        sa.Column("actor", sa.String(length=40), nullable=False),
        sa.Column("fields", sa.JSON(), nullable=False),
        *columns,
        sa.ForeignKeyConstraint(["case_id"], ["cases.id"]),
        sa.PrimaryKeyConstraint("id"),
    )


def _put_in_place() -> None:
    """What stood under the name of the trail is replaced by the table beside it."""
    op.drop_table("audit_events")
    op.rename_table("audit_events_new", "audit_events")
    op.create_index(op.f("ix_audit_events_case_id"), "audit_events", ["case_id"], unique=False)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER INDEX audit_events_new_pkey RENAME TO audit_events_pkey")


def _batches() -> Iterator[list[RowMapping]]:
    """The events that are there, in order, a thousand at a time."""
    old = sa.table(
        "audit_events",
        sa.column("id", sa.Integer()),
        sa.column("at", UtcDateTime()),
        sa.column("case_id", sa.Integer()),
        sa.column("event", sa.String()),
        sa.column("actor", sa.String()),
        sa.column("fields", sa.JSON()),
    )
    after = 0
    while True:
        query = sa.select(old).where(old.c.id > after).order_by(old.c.id).limit(_AT_ONCE)
        rows = list(op.get_bind().execute(query).mappings())
        if not rows:
            return
        yield rows
        after = rows[-1]["id"]


def _refuse_changes(table: str) -> None:
    sentence = f"{table} is append-only: its rows are neither changed nor removed"
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE OR REPLACE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "RAISE EXCEPTION '% is append-only: its rows are neither changed nor removed', TG_TABLE_NAME; END $$"
        )
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only()"
        )
        return
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER {table}_no_{change.lower()} BEFORE {change} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{sentence}'); END"
        )
    # INSERT OR REPLACE removes a row without asking the trigger of DELETE
    op.execute(
        f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} "  # noqa: S608 - the names stand above
        f"WHEN EXISTS (SELECT 1 FROM {table} WHERE id = NEW.id) "
        f"BEGIN SELECT RAISE(ABORT, '{sentence}'); END"
    )


def _allow_changes(table: str) -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"DROP TRIGGER {table}_append_only ON {table}")
        return
    for what in ("update", "delete", "replace"):
        op.execute(f"DROP TRIGGER {table}_no_{what}")
