"""Galleries whose vectors in the index were given another secret rotation."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "gallery_rotations",
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("gallery_id", sa.Uuid(), nullable=False),
        sa.Column("writes", sa.Integer(), nullable=False),
        sa.Column("also", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["workspace_id", "gallery_id"],
            ["galleries.workspace_id", "galleries.id"],
            name=op.f("fk_gallery_rotations_workspace_id_gallery_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("workspace_id", "gallery_id", name=op.f("pk_gallery_rotations")),
    )


def downgrade() -> None:
    # An older version turns every gallery by the first rotation: those that were given another must be rebuilt.
    op.drop_table("gallery_rotations")
