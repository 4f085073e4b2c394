"""Erasures with their receipts, and how far the ledger beside the database is known."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    # Nobody wrote to the former one yet.
    op.drop_table("erasures")
    op.create_table(
        "erasures",
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("erased_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("digests", sa.ARRAY(sa.LargeBinary()), nullable=False),
        sa.Column("receipt", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("filed", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_erasures")),
    )
    op.create_index(op.f("ix_erasures_digests"), "erasures", ["digests"], unique=False, postgresql_using="gin")
    op.create_index(op.f("ix_erasures_id"), "erasures", ["id"], unique=False, postgresql_where=sa.text("NOT filed"))
    op.create_table(
        "ledger_mark",
        sa.Column("only", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("replayed_until", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint('"only"', name=op.f("ck_ledger_mark_one_row")),
        sa.PrimaryKeyConstraint("only", name=op.f("pk_ledger_mark")),
    )


def downgrade() -> None:
    op.drop_table("ledger_mark")
    op.drop_table("erasures")
    op.create_table(
        "erasures",
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("erased_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "digest", name=op.f("pk_erasures")),
    )
