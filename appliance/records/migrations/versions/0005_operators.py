"""operators: how often a case was taken, for fencing, and who asks that a series be taken as complete."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema forward."""
    op.add_column("cases", sa.Column("leases", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("cases", sa.Column("forced_by", sa.String(length=40), nullable=True))
    op.add_column("cases", sa.Column("forced_why", sa.Text(), nullable=True))


def downgrade() -> None:
    """Take the schema back; what an operator cancelled stands as failed there."""
    op.execute("UPDATE cases SET state = 'failed' WHERE state = 'cancelled'")
    for column in ("forced_why", "forced_by", "leases"):
        op.drop_column("cases", column)
