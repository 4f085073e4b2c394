from datetime import UTC, datetime, timedelta
from os import urandom
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from adapters.persistence import schema
from adapters.persistence.answer_repository import SqlAnswerRepository
from adapters.persistence.connection import SqlConnection
from adapters.persistence.database import Database
from adapters.persistence.person_repository import SqlPersonRepository
from adapters.persistence.reference_repository import SqlReferenceRepository
from adapters.persistence.schema import OpenSealing, Sealing
from adapters.security.cipher import AesGcmCipher
from adapters.security.keyed_hash import HmacKeyedHash
from adapters.security.secret import Secret
from adapters.security.wrapping_keys import WrappingKeys
from adapters.system.id_generator import UuidV7Generator
from application.ports.cipher import DataKeyId
from application.ports.errors import PortRejected
from domain.gallery import GalleryId
from domain.workspace import WorkspaceId

IDS = UuidV7Generator()
BEFORE, SEALED = "0008", "0009"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET = Secret(bytes(range(32)))
CIPHER = AesGcmCipher(WrappingKeys({0: SECRET.derive("wrap")}))
KEYED_HASH = HmacKeyedHash(SECRET)
METADATA = {"name": "Zoë \u2028", "team": '{"a": 1}', "": ""}
NAMED, UNNAMED = UUID(int=11), UUID(int=12)
HOME, GALLERY = WorkspaceId(UUID(int=1)), GalleryId(UUID(int=2))


async def sealing() -> Sealing:
    return Sealing(cipher=CIPHER, keyed_hash=KEYED_HASH, from_master_key=True)


async def rows(database: Database, statement: str) -> list[dict[str, Any]]:
    async with database.reads.connect() as connection:
        return [dict(row) for row in (await connection.execute(text(statement))).mappings()]


async def columns(database: Database) -> set[tuple[str, str, str]]:
    found = await rows(
        database,
        "SELECT table_name, column_name, data_type || ' ' || is_nullable AS kind FROM information_schema.columns"
        " WHERE table_schema = 'public'",
    )
    return {(row["table_name"], row["column_name"], row["kind"]) for row in found}


async def fill(database: Database) -> None:
    """People as a version kept them that sealed none of it."""
    async with database.transactions.begin() as connection:

        async def add(statement: str, **values: object) -> None:
            await connection.execute(text(statement), values)

        await add("INSERT INTO workspaces (id, name, created_at) VALUES (:w, 'ours', :now)", w=HOME, now=NOW)
        await add(
            "INSERT INTO galleries (workspace_id, id, name, space, policy, created_at, updated_at, version)"
            " VALUES (:w, :g, 'default', 's', '{}', :now, :now, 1)",
            w=HOME,
            g=GALLERY,
            now=NOW,
        )
        people = [(NAMED, "emp-17"), (UNNAMED, None), *((UUID(int=100 + n), f"emp-{n + 100}") for n in range(1200))]
        for person, external_id in people:
            await add(
                "INSERT INTO people"
                " (workspace_id, id, gallery_id, external_id, metadata, created_at, updated_at, version)"
                " VALUES (:w, :p, :g, :e, CAST(:m AS jsonb), :now, :now, 3)",
                w=HOME,
                p=person,
                g=GALLERY,
                e=external_id,
                m='{"name": "Zoë \u2028", "team": "{\\"a\\": 1}", "": ""}' if person == NAMED else "{}",
                now=NOW,
            )
            key = CIPHER.new_key(DataKeyId(IDS.new()), workspace=HOME)
            await add(
                "INSERT INTO data_keys (workspace_id, person_id, id, wrapped) VALUES (:w, :p, :k, :x)",
                w=HOME,
                p=person,
                k=key.id,
                x=key.wrapped,
            )
            if person in {NAMED, UNNAMED}:
                await add(
                    'INSERT INTO "references"'
                    " (workspace_id, id, gallery_id, person_id, enrolled_for, data_key_id, space, template,"
                    " quality_score, quality_reasons, box, filename, searchable, created_at)"
                    " VALUES (:w, :r, :g, :p, :f, :k, 's', :t, 1, '{}', '{0,0,1,1}', :n, true, :now)",
                    w=HOME,
                    r=UUID(int=person.int + 1000),
                    g=GALLERY,
                    p=NAMED,  # the other's came to them by a merge
                    f=person,
                    k=key.id,
                    t=urandom(50),
                    n="portrait ü.jpg" if person == UNNAMED else None,
                    now=NOW,
                )
        await add(
            "INSERT INTO answers (workspace_id, idempotency_key, fingerprint, data_key_id, wrapped, body, expires_at)"
            " VALUES (:w, 'emp-17 again', :b, :k, :b, :b, :later)",
            w=HOME,
            b=b"x",
            k=IDS.new(),
            later=NOW + timedelta(hours=24),
        )


@pytest.fixture
async def filled(database: Database, database_url: str) -> Database:
    await schema.downgrade(database_url, BEFORE)
    await fill(database)
    return database


async def test_people_are_sealed_and_found_again(filled: Database, database_url: str) -> None:
    await schema.upgrade(database_url, sealing=sealing)
    connection = SqlConnection(filled.transactions)
    people = SqlPersonRepository(connection, CIPHER, KEYED_HASH)
    named = await people.get(HOME, GALLERY, "emp-17")
    assert (named.id, named.external_id, named.metadata, named.version) == (NAMED, "emp-17", METADATA, 3)
    page = await people.page(HOME, GALLERY, limit=2000, after=None, external_id=None)
    assert {one.external_id for one in page.items} == {"emp-17", None, *(f"emp-{n + 100}" for n in range(1200))}
    references = await SqlReferenceRepository(connection, CIPHER, KEYED_HASH).page(HOME, GALLERY, limit=9, after=None)
    assert [one.filename for one in references.items] == [None, "portrait ü.jpg"]
    answers = SqlAnswerRepository(connection, KEYED_HASH)
    assert await answers.find(HOME, "emp-17 again", now=NOW) is not None
    assert await answers.find(HOME, "emp-17", now=NOW) is None
    await connection.aclose()


async def test_what_was_sealed_is_in_no_table_any_more(filled: Database, database_url: str) -> None:
    await schema.upgrade(database_url, sealing=sealing)
    for table in ("people", '"references"', "answers"):
        for row in await rows(filled, f"SELECT {table}::text AS told FROM {table}"):  # noqa: S608 - our own names
            for secret in ("emp-17", "Zoë", "portrait"):
                assert secret not in row["told"]
                assert secret.encode().hex() not in row["told"]


async def test_the_tables_are_written_anew_behind_it(filled: Database, database_url: str) -> None:
    # An update leaves the old row in its page: who reads the file would read it there.
    files = "SELECT pg_relation_filepath(name) AS file FROM (VALUES %s) AS of (name)"
    told = files % "('people'::regclass), ('\"references\"'), ('answers')"
    before = await rows(filled, told)
    await schema.upgrade(database_url, sealing=sealing)
    after = await rows(filled, told)
    assert all(new["file"] != old["file"] for new, old in zip(after, before, strict=True))


async def test_one_that_was_killed_before_the_tables_were_written_anew_is_finished_later(
    filled: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(schema, "_leave_nothing", killed)
        with pytest.raises(KeyboardInterrupt):
            await schema.upgrade(database_url, sealing=sealing)
    assert await schema.current(database_url) == schema.head()
    [before] = await rows(filled, "SELECT relfilenode FROM pg_class WHERE relname = 'people'")
    for again in (True, False):
        await schema.upgrade(database_url)
        [after] = await rows(filled, "SELECT relfilenode FROM pg_class WHERE relname = 'people'")
        assert (after != before) is again
        before = after


async def test_it_comes_back_as_it_was(filled: Database, database_url: str) -> None:
    told = (
        "SELECT id, external_id, metadata, version FROM people ORDER BY id",
        'SELECT id, filename FROM "references" ORDER BY id',
    )
    before = [await rows(filled, statement) for statement in told]
    laid_out = await columns(filled)
    await schema.upgrade(database_url, sealing=sealing)
    await schema.downgrade(database_url, BEFORE, sealing=sealing)
    assert [await rows(filled, statement) for statement in told] == before
    assert await columns(filled) == laid_out
    await schema.upgrade(database_url, sealing=sealing)


async def refused_by_the_operators_mistake() -> Sealing:
    raise PortRejected("master_key", "it is nowhere")


@pytest.mark.parametrize(
    ("keys", "reason"), [(None, "no master key"), (refused_by_the_operators_mistake, "it is nowhere")]
)
async def test_without_a_key_it_stops_and_changes_nothing(
    filled: Database, database_url: str, keys: OpenSealing | None, reason: str
) -> None:
    before, laid_out = await rows(filled, "SELECT id, external_id FROM people ORDER BY id"), await columns(filled)
    with pytest.raises(PortRejected, match=reason):
        await schema.upgrade(database_url, sealing=keys)
    assert await schema.current(database_url) == BEFORE
    assert await rows(filled, "SELECT id, external_id FROM people ORDER BY id") == before
    assert await columns(filled) == laid_out


@pytest.mark.usefixtures("filled")
async def test_it_does_not_go_back_to_a_version_that_cannot_open_it(database_url: str) -> None:
    await schema.upgrade(database_url, sealing=sealing)

    async def newer() -> Sealing:
        return Sealing(cipher=CIPHER, keyed_hash=KEYED_HASH, from_master_key=False)

    with pytest.raises(PortRejected, match="ring of keys"):
        await schema.downgrade(database_url, BEFORE, sealing=newer)
    assert await schema.current(database_url) == SEALED
