"""What identifies people is sealed: external_id, metadata, file names; idempotency keys become keyed hashes."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from adapters.persistence.schema import COVERED_UP, Sealing, sealing_of
from application.ports.cipher import DataKeyId, Place, WrappedKey
from application.ports.errors import PortRejected
from domain.workspace import WorkspaceId

revision = "0009"
down_revision = "0008"

PAGE = 1000

PEOPLE = sa.table(
    "people",
    *(
        sa.column(name, kind)
        for name, kind in (
            ("workspace_id", sa.Uuid()),
            ("id", sa.Uuid()),
            ("data_key_id", sa.Uuid()),
            ("external_id", sa.LargeBinary()),
            ("external_id_digest", sa.LargeBinary()),
            ("metadata", sa.LargeBinary()),
            ("plain_external_id", sa.Text()),
            ("plain_metadata", postgresql.JSONB()),
        )
    ),
)
REFERENCES = sa.table(
    "references",
    *(
        sa.column(name, kind)
        for name, kind in (
            ("workspace_id", sa.Uuid()),
            ("id", sa.Uuid()),
            ("enrolled_for", sa.Uuid()),
            ("data_key_id", sa.Uuid()),
            ("filename", sa.LargeBinary()),
            ("plain_filename", sa.Text()),
        )
    ),
)
DATA_KEYS = sa.table(
    "data_keys",
    *(
        sa.column(name, kind)
        for name, kind in (
            ("workspace_id", sa.Uuid()),
            ("person_id", sa.Uuid()),
            ("id", sa.Uuid()),
            ("wrapped", sa.LargeBinary()),
        )
    ),
)
ANSWERS = sa.table(
    "answers",
    *(
        sa.column(name, kind)
        for name, kind in (
            ("workspace_id", sa.Uuid()),
            ("plain_key", sa.Text()),
            ("idempotency_digest", sa.LargeBinary()),
        )
    ),
)

Values = Callable[[Any, Sealing], Mapping[str, object]]


def upgrade() -> None:
    op.alter_column("people", "external_id", new_column_name="plain_external_id")
    op.alter_column("people", "metadata", new_column_name="plain_metadata")
    op.alter_column("references", "filename", new_column_name="plain_filename")
    op.alter_column("answers", "idempotency_key", new_column_name="plain_key")
    op.drop_constraint(op.f("uq_people_workspace_id_gallery_id_external_id"), "people", type_="unique")
    op.drop_constraint(op.f("pk_answers"), "answers", type_="primary")
    op.add_column("people", sa.Column("external_id", sa.LargeBinary(), nullable=True))
    op.add_column("people", sa.Column("external_id_digest", sa.LargeBinary(), nullable=True))
    op.add_column("people", sa.Column("metadata", sa.LargeBinary(), nullable=True))
    op.add_column("people", sa.Column("data_key_id", sa.Uuid(), nullable=True))
    op.add_column("references", sa.Column("filename", sa.LargeBinary(), nullable=True))
    op.add_column("answers", sa.Column("idempotency_digest", sa.LargeBinary(), nullable=True))
    op.execute(
        """
        UPDATE people SET data_key_id = (
            SELECT id FROM data_keys
             WHERE data_keys.workspace_id = people.workspace_id AND data_keys.person_id = people.id
             ORDER BY id DESC LIMIT 1
        )
        """
    )
    rewrite(PEOPLE, sealed_person, of_key(PEOPLE.c.id))
    rewrite(REFERENCES, sealed_filename, of_key(REFERENCES.c.enrolled_for), REFERENCES.c.plain_filename.is_not(None))
    hash_idempotency_keys()
    op.create_table_comment("people", COVERED_UP)
    op.drop_column("people", "plain_external_id")
    op.drop_column("people", "plain_metadata")
    op.drop_column("references", "plain_filename")
    op.drop_column("answers", "plain_key")
    op.alter_column("people", "metadata", nullable=False)
    op.alter_column("people", "data_key_id", nullable=False)
    op.alter_column("answers", "idempotency_digest", nullable=False)
    op.create_primary_key(op.f("pk_answers"), "answers", ["workspace_id", "idempotency_digest"])
    op.create_unique_constraint(
        op.f("uq_people_workspace_id_gallery_id_external_id_digest"),
        "people",
        ["workspace_id", "gallery_id", "external_id_digest"],
    )
    op.create_check_constraint(
        "external_id_and_digest", "people", "num_nulls(external_id, external_id_digest) IN (0, 2)"
    )


def downgrade() -> None:
    op.drop_table_comment("people")
    op.drop_constraint("external_id_and_digest", "people", type_="check")
    op.drop_constraint(op.f("uq_people_workspace_id_gallery_id_external_id_digest"), "people", type_="unique")
    op.drop_constraint(op.f("pk_answers"), "answers", type_="primary")
    op.add_column("people", sa.Column("plain_external_id", sa.Text(), nullable=True))
    op.add_column("people", sa.Column("plain_metadata", postgresql.JSONB(), nullable=True))
    op.add_column("references", sa.Column("plain_filename", sa.Text(), nullable=True))
    op.add_column("answers", sa.Column("idempotency_key", sa.Text(), nullable=True))
    rewrite(PEOPLE, opened_person, of_key(PEOPLE.c.id))
    rewrite(REFERENCES, opened_filename, of_key(REFERENCES.c.enrolled_for), REFERENCES.c.filename.is_not(None))
    # A keyed hash does not say what it is of: these are forgotten, as a day later they would be anyway.
    op.execute("DELETE FROM answers")
    op.drop_column("people", "external_id")
    op.drop_column("people", "external_id_digest")
    op.drop_column("people", "metadata")
    op.drop_column("people", "data_key_id")
    op.drop_column("references", "filename")
    op.drop_column("answers", "idempotency_digest")
    op.alter_column("people", "plain_external_id", new_column_name="external_id")
    op.alter_column("people", "plain_metadata", new_column_name="metadata", nullable=False)
    op.alter_column("references", "plain_filename", new_column_name="filename")
    op.alter_column("answers", "idempotency_key", nullable=False)
    op.create_primary_key(op.f("pk_answers"), "answers", ["workspace_id", "idempotency_key"])
    op.create_unique_constraint(
        op.f("uq_people_workspace_id_gallery_id_external_id"), "people", ["workspace_id", "gallery_id", "external_id"]
    )


def of_key(owner: sa.ColumnElement[Any]) -> Callable[[sa.TableClause], sa.ColumnElement[bool]]:
    """Say which data key a row of a table is sealed with."""
    return lambda table: (
        (DATA_KEYS.c.workspace_id == table.c.workspace_id)
        & (DATA_KEYS.c.person_id == owner)
        & (DATA_KEYS.c.id == table.c.data_key_id)
    )


def rewrite(
    table: sa.TableClause,
    values: Values,
    key: Callable[[sa.TableClause], sa.ColumnElement[bool]],
    *conditions: sa.ColumnElement[bool],
) -> None:
    """Give every row its new values, a page at a time; the keys are asked for with the first one."""
    connection = op.get_bind()
    place = sa.tuple_(table.c.workspace_id, table.c.id)
    rows = (
        sa.select(*table.c, DATA_KEYS.c.wrapped)
        .select_from(table.join(DATA_KEYS, key(table)))
        .where(*conditions)
        .order_by(table.c.workspace_id, table.c.id)
        .limit(PAGE)
    )
    for page in pages(rows, place):
        sealing = sealing_of(op.get_context())
        changed = [{"here": row.workspace_id, "this": row.id, **values(row, sealing)} for row in page]
        names = changed[0].keys() - {"here", "this"}
        connection.execute(
            sa.update(table)
            .where(table.c.workspace_id == sa.bindparam("here"), table.c.id == sa.bindparam("this"))
            .values({name: sa.bindparam(name) for name in names}),
            changed,
        )


def pages(rows: sa.Select[Any], place: sa.Tuple) -> Iterator[list[sa.Row[Any]]]:
    last: sa.Row[Any] | None = None
    while True:
        behind = rows if last is None else rows.where(place > sa.tuple_(last.workspace_id, last.id))
        page = list(op.get_bind().execute(behind))
        if not page:
            return
        yield page
        last = page[-1]


def hash_idempotency_keys() -> None:
    connection = op.get_bind()
    answers = list(connection.execute(sa.select(ANSWERS.c.workspace_id, ANSWERS.c.plain_key)))
    if answers:
        sealing = sealing_of(op.get_context())
        connection.execute(
            sa.update(ANSWERS)
            .where(ANSWERS.c.workspace_id == sa.bindparam("here"), ANSWERS.c.plain_key == sa.bindparam("this"))
            .values(idempotency_digest=sa.bindparam("digest")),
            [
                {
                    "here": answer.workspace_id,
                    "this": answer.plain_key,
                    "digest": sealing.keyed_hash.digest(
                        "idempotency-key", answer.workspace_id.bytes + answer.plain_key.encode()
                    ),
                }
                for answer in answers
            ],
        )


def sealed_person(row: Any, sealing: Sealing) -> Mapping[str, object]:  # noqa: ANN401 - a row's columns are its own
    metadata = json.dumps(row.plain_metadata, ensure_ascii=False, separators=(",", ":"))
    named = row.plain_external_id is not None
    return {
        "external_id": seal(row, sealing, row.plain_external_id, "external_id") if named else None,
        "external_id_digest": sealing.keyed_hash.digest(
            "external-id", row.workspace_id.bytes + row.plain_external_id.encode()
        )
        if named
        else None,
        "metadata": seal(row, sealing, metadata, "metadata"),
    }


def sealed_filename(row: Any, sealing: Sealing) -> Mapping[str, object]:  # noqa: ANN401 - the same
    return {"filename": seal(row, sealing, row.plain_filename, "filename")}


def opened_person(row: Any, sealing: Sealing) -> Mapping[str, object]:  # noqa: ANN401 - the same
    if not sealing.from_master_key:
        raise PortRejected(
            "database",
            "its data is sealed under a ring of keys that earlier versions do not know: it cannot go back to them",
        )
    named = row.external_id is not None
    return {
        "plain_external_id": opened(row, sealing, row.external_id, "external_id") if named else None,
        "plain_metadata": json.loads(opened(row, sealing, row.metadata, "metadata")),
    }


def opened_filename(row: Any, sealing: Sealing) -> Mapping[str, object]:  # noqa: ANN401 - the same
    return {"plain_filename": opened(row, sealing, row.filename, "filename")}


def seal(row: Any, sealing: Sealing, text: str, purpose: str) -> bytes:  # noqa: ANN401 - the same
    return sealing.cipher.seal(text.encode(), key=key_of(row), place=place_of(row, purpose))


def opened(row: Any, sealing: Sealing, sealed: bytes, purpose: str) -> str:  # noqa: ANN401 - the same
    return sealing.cipher.open(sealed, key=key_of(row), place=place_of(row, purpose)).decode()


def key_of(row: Any) -> WrappedKey:  # noqa: ANN401 - the same
    return WrappedKey(id=DataKeyId(row.data_key_id), workspace=WorkspaceId(row.workspace_id), wrapped=row.wrapped)


def place_of(row: Any, purpose: str) -> Place:  # noqa: ANN401 - the same
    return Place(workspace=WorkspaceId(row.workspace_id), subject=row.id, purpose=purpose)
