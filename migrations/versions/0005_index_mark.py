"""How far the filling of another vector index came."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("index_state", sa.Column("mark_gallery", sa.Uuid(), nullable=True))
    op.add_column("index_state", sa.Column("mark_reference", sa.Uuid(), nullable=True))
    op.add_column("index_state", sa.Column("mark_references", sa.BigInteger(), nullable=True))
    op.create_check_constraint(
        op.f("ck_index_state_whole_mark"),
        "index_state",
        "num_nulls(mark_gallery, mark_reference, mark_references) IN (0, 3)",
    )


def downgrade() -> None:
    op.drop_constraint(op.f("ck_index_state_whole_mark"), "index_state")
    op.drop_column("index_state", "mark_references")
    op.drop_column("index_state", "mark_reference")
    op.drop_column("index_state", "mark_gallery")
