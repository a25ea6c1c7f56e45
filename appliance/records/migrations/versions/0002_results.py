"""results: a case may have several, each delivered on its own."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# how PostgreSQL names a constraint without a name; SQLite forgets such a constraint's name, so it is given the same
_NAMES = {"uq": "%(table_name)s_%(column_0_N_name)s_key"}


def upgrade() -> None:
    """Bring the schema forward: what cases said of their structure sets becomes a result of each."""
    op.create_table(
        "results",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("case_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Enum("rtstruct", "seg", name="resultkind", native_enum=False, length=16), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("file", sa.String(length=120), nullable=False),
        sa.ForeignKeyConstraint(["case_id"], ["cases.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("case_id", "kind"),
    )
    op.execute(
        "INSERT INTO results (case_id, kind, sop_instance_uid, digest, file) "
        "SELECT id, 'rtstruct', result_sop_instance_uid, result_digest, result_file FROM cases "
        "WHERE result_file IS NOT NULL ORDER BY id"
    )
    with op.batch_alter_table("deliveries") as batch_op:
        batch_op.add_column(sa.Column("result_id", sa.Integer(), nullable=True))
    op.execute(
        "UPDATE deliveries SET result_id = (SELECT results.id FROM results WHERE results.case_id = deliveries.case_id)"
    )
    with op.batch_alter_table("deliveries", naming_convention=_NAMES) as batch_op:
        batch_op.alter_column("result_id", existing_type=sa.Integer(), nullable=False)
        batch_op.create_foreign_key("deliveries_result_id_fkey", "results", ["result_id"], ["id"])
        batch_op.drop_constraint("deliveries_case_id_destination_key", type_="unique")
        batch_op.create_unique_constraint("deliveries_result_id_destination_key", ["result_id", "destination"])
    for name in ("result_sop_instance_uid", "result_digest", "result_file"):
        op.drop_column("cases", name)


def downgrade() -> None:
    """Take the schema back; of each case the structure set is kept, and what else was made for it is forgotten."""
    for name, length in (("result_sop_instance_uid", 64), ("result_digest", 64), ("result_file", 120)):
        op.add_column("cases", sa.Column(name, sa.String(length=length), nullable=True))
    for name, source in (
        ("result_sop_instance_uid", "sop_instance_uid"),
        ("result_digest", "digest"),
        ("result_file", "file"),
    ):
        op.execute(
            f"UPDATE cases SET {name} = "  # noqa: S608 - the names stand above
            f"(SELECT {source} FROM results WHERE results.case_id = cases.id AND results.kind = 'rtstruct')"
        )
    op.execute("DELETE FROM deliveries WHERE result_id IN (SELECT id FROM results WHERE kind <> 'rtstruct')")
    with op.batch_alter_table("deliveries", naming_convention=_NAMES) as batch_op:
        batch_op.drop_constraint("deliveries_result_id_destination_key", type_="unique")
        batch_op.drop_constraint("deliveries_result_id_fkey", type_="foreignkey")
        batch_op.create_unique_constraint("deliveries_case_id_destination_key", ["case_id", "destination"])
        batch_op.drop_column("result_id")
    op.drop_table("results")
