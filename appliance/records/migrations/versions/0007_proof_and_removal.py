"""proof and removal: what destinations answered and how it is known that they keep a result; when files were removed."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Bring the schema forward; whatever was committed until now was so by storage commitment."""
    for table in ("instances", "results"):
        op.add_column(table, sa.Column("removed_at", _MOMENT, nullable=True))
    op.add_column("deliveries", sa.Column("last_tried_at", _MOMENT, nullable=True))
    op.add_column("deliveries", sa.Column("last_answer", sa.Text(), nullable=True))
    op.add_column("deliveries", sa.Column("unseen", sa.Integer(), nullable=False, server_default="0"))
    proof = sa.Enum("commitment", "sighting", name="proof", native_enum=False, length=16)
    op.add_column("deliveries", sa.Column("proof", proof, nullable=True))
    op.add_column("deliveries", sa.Column("proved_at", _MOMENT, nullable=True))
    op.execute(
        "UPDATE deliveries SET proof = 'commitment', proved_at ="
        " (SELECT cases.entered_state_at FROM cases WHERE cases.id = deliveries.case_id)"
        " WHERE state = 'committed'"
    )


def downgrade() -> None:
    """Take the schema back; how often something was looked for, and when files were removed, is forgotten."""
    for column in ("proved_at", "proof", "unseen", "last_answer", "last_tried_at"):
        op.drop_column("deliveries", column)
    for table in ("results", "instances"):
        op.drop_column(table, "removed_at")
