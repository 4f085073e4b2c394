"""Invitations say who made them, and have an id to be withdrawn by."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    # Links of before were made by nobody that is known: they stay good for the days that they have left.
    op.add_column("one_time_links", sa.Column("id", sa.Uuid(), nullable=True))
    op.execute("UPDATE one_time_links SET id = gen_random_uuid()")
    op.alter_column("one_time_links", "id", nullable=False)
    op.add_column("one_time_links", sa.Column("made_by", sa.Uuid(), nullable=True))
    op.create_unique_constraint(op.f("uq_one_time_links_id"), "one_time_links", ["id"])
    op.create_foreign_key(
        op.f("fk_one_time_links_made_by"), "one_time_links", "users", ["made_by"], ["id"], ondelete="CASCADE"
    )
    op.create_index(
        op.f("ix_one_time_links_made_by"),
        "one_time_links",
        ["made_by"],
        unique=False,
        postgresql_where=sa.text("made_by IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_one_time_links_made_by"), "one_time_links")
    op.drop_constraint(op.f("fk_one_time_links_made_by"), "one_time_links", type_="foreignkey")
    op.drop_constraint(op.f("uq_one_time_links_id"), "one_time_links", type_="unique")
    op.drop_column("one_time_links", "made_by")
    op.drop_column("one_time_links", "id")
