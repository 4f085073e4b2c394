"""Which vector index answers."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "index_state",
        sa.Column("only", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("serving", sa.Text(), nullable=False),
        sa.Column("beside", sa.Text(), nullable=True),
        sa.Column("filled", sa.Boolean(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint('"only"', name=op.f("ck_index_state_one_row")),
        sa.CheckConstraint("serving <> beside", name=op.f("ck_index_state_two_indexes")),
        sa.PrimaryKeyConstraint("only", name=op.f("pk_index_state")),
    )


def downgrade() -> None:
    op.drop_table("index_state")
