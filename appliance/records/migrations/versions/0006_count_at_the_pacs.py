"""The PACS's own count of a series, and who is still to be asked for it."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_SIGNS = ("not_asked", "unanswered", "short", "confirmed", "surplus")


def upgrade() -> None:
    """Bring the schema forward; nobody was asked about cases that are there."""
    signs = sa.Enum(*_SIGNS, name="countsign", native_enum=False, length=16)
    op.add_column("cases", sa.Column("foreseen_protocol", sa.String(length=31), nullable=True))
    op.add_column("cases", sa.Column("count_sign", signs, nullable=False, server_default="not_asked"))
    op.add_column("cases", sa.Column("count_wanted_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("cases", sa.Column("count_asked_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("cases", sa.Column("expected_slices", sa.Integer(), nullable=True))
    op.add_column("cases", sa.Column("count_sentence", sa.Text(), nullable=True))


def downgrade() -> None:
    """Take the schema back; what PACS said is forgotten."""
    for name in (
        "count_sentence",
        "expected_slices",
        "count_asked_at",
        "count_wanted_at",
        "count_sign",
        "foreseen_protocol",
    ):
        op.drop_column("cases", name)
