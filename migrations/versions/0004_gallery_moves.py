"""Templates of a second space, for galleries that move to another model."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "gallery_moves",
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("gallery_id", sa.Uuid(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("report", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("switched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "gallery_id"],
            ["galleries.workspace_id", "galleries.id"],
            name=op.f("fk_gallery_moves_workspace_id_gallery_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("workspace_id", "gallery_id", name=op.f("pk_gallery_moves")),
    )
    op.create_table(
        "spare_templates",
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("reference_id", sa.Uuid(), nullable=False),
        sa.Column("space", sa.Text(), nullable=False),
        sa.Column("gallery_id", sa.Uuid(), nullable=False),
        sa.Column("template", sa.LargeBinary(), nullable=True),
        sa.Column("refusal", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(template IS NULL) <> (refusal IS NULL)", name=op.f("ck_spare_templates_template_or_refusal")
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "reference_id"],
            ["references.workspace_id", "references.id"],
            name=op.f("fk_spare_templates_workspace_id_reference_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("workspace_id", "reference_id", "space", name=op.f("pk_spare_templates")),
        postgresql_with={"toast_tuple_target": 8160},
    )
    op.create_index(
        op.f("ix_spare_templates_workspace_id_gallery_id_reference_id"),
        "spare_templates",
        ["workspace_id", "gallery_id", "reference_id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_spare_templates_workspace_id_gallery_id_space_reference_id"),
        "spare_templates",
        ["workspace_id", "gallery_id", "space", "reference_id"],
        unique=False,
        postgresql_where=sa.text("refusal IS NOT NULL"),
    )
    op.add_column(
        "reconciliations",
        sa.Column("further_spaces", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
    )


def downgrade() -> None:
    # One template a reference is left, of its gallery's space: an older version asks for no other.
    op.execute(
        """
        UPDATE "references" AS r SET template = s.template, space = s.space
        FROM spare_templates AS s, galleries AS g
        WHERE s.workspace_id = r.workspace_id AND s.reference_id = r.id AND s.template IS NOT NULL
            AND g.workspace_id = r.workspace_id AND g.id = r.gallery_id AND g.space = s.space
        """
    )
    op.execute(
        """
        DO $$ BEGIN
            IF EXISTS (
                SELECT FROM "references" AS r, galleries AS g
                WHERE g.workspace_id = r.workspace_id AND g.id = r.gallery_id AND g.space <> r.space
            ) THEN
                RAISE EXCEPTION 'references are left behind in another embedding space than their gallery''s:'
                    ' delete them, or move the gallery back first';
            END IF;
        END $$
        """
    )
    op.drop_column("reconciliations", "further_spaces")
    op.drop_table("spare_templates")
    op.drop_table("gallery_moves")
