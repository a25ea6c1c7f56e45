"""parts: a case may be drawn by several models, each by another worker."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema forward; a case may name as many models as its protocol does."""
    op.create_table(
        "parts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("case_id", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column(
            "state",
            sa.Enum("waiting", "working", "done", name="partstate", native_enum=False, length=16),
            nullable=False,
        ),
        sa.Column("lease_owner", sa.String(length=64), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("progress", sa.JSON(), nullable=False),
        sa.Column("file", sa.String(length=120), nullable=False),
        sa.ForeignKeyConstraint(["case_id"], ["cases.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("case_id", "model"),
    )
    _change_type_of_model(sa.Text())


def downgrade() -> None:
    """Take the schema back; of long lists of models the beginning is kept, and parts are made again."""
    _change_type_of_model(sa.String(length=64))
    op.drop_table("parts")


def _change_type_of_model(new: sa.types.TypeEngine[str]) -> None:
    """By way of another column: SQLite changes no type, and its other way, a new table, breaks what refers to it."""
    op.add_column("cases", sa.Column("model_names", new, nullable=True))
    op.execute("UPDATE cases SET model_names = substr(model, 1, 64)")
    op.drop_column("cases", "model")
    op.execute("ALTER TABLE cases RENAME COLUMN model_names TO model")
