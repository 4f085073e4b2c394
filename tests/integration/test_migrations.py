import asyncio

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import insert, text

from adapters.persistence import schema
from adapters.persistence.database import Database, engine
from adapters.persistence.tables import INSTALLATION, METADATA
from application.ports.errors import PortRejected, PortUnavailable


async def tables(url: str) -> set[str]:
    pool = engine(url, connections=1, timeout=10.0)
    async with pool.connect() as connection:
        found = await connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))
        names = set(found.scalars())
    await pool.dispose()
    return names


async def test_the_newest_schema_comes_and_goes_and_comes_again(empty_database_url: str) -> None:
    url = empty_database_url
    assert await schema.current(url) is None
    for _ in range(2):
        await schema.upgrade(url)
        assert await schema.current(url) == schema.head()
        assert await tables(url) == {*METADATA.tables, "alembic_version"}
        await schema.downgrade(url, "base")
        assert await schema.current(url) is None
        assert await tables(url) == {"alembic_version"}


async def test_upgrading_twice_changes_nothing(empty_database_url: str) -> None:
    await schema.upgrade(empty_database_url)
    await schema.upgrade(empty_database_url)
    assert await schema.current(empty_database_url) == schema.head()


async def test_processes_that_upgrade_at_once_wait_for_each_other(empty_database_url: str) -> None:
    await asyncio.gather(*(schema.upgrade(empty_database_url) for _ in range(3)))
    assert await schema.current(empty_database_url) == schema.head()


async def test_the_migrations_make_what_the_tables_say(database: Database) -> None:
    async with database.transactions.connect() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(
                MigrationContext.configure(sync, opts={"compare_type": True, "compare_server_default": True}), METADATA
            )
        )
    assert differences == []


async def test_constraints_and_storage_are_those_of_the_tables(empty_database_url: str, database: Database) -> None:
    # Autogeneration compares neither checks, nor actions, nor conditions of indexes, nor storage.
    described = text(
        """
        SELECT conrelid::regclass::text AS place, conname AS name, pg_get_constraintdef(oid) AS definition
          FROM pg_constraint WHERE connamespace = 'public'::regnamespace
        UNION ALL SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
        UNION ALL SELECT relname, 'storage', reloptions::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
        """
    )
    made = engine(empty_database_url, connections=1, timeout=10.0)
    async with made.begin() as connection:
        await connection.run_sync(METADATA.create_all)
        expected = {tuple(row) for row in await connection.execute(described)}
    await made.dispose()
    async with database.transactions.connect() as connection:
        found = {tuple(row) for row in await connection.execute(described) if "alembic" not in row.place + row.name}
    assert found == expected


async def test_whether_the_schema_is_current_is_told(empty_database_url: str) -> None:
    database = Database.at(empty_database_url)
    assert not await schema.is_current(database.reads)
    await schema.upgrade(empty_database_url)
    assert await schema.is_current(database.reads)
    await database.aclose()


async def test_a_database_of_a_newer_version_is_refused_and_left_alone(database: Database, database_url: str) -> None:
    async with database.transactions.begin() as connection:
        await connection.execute(insert(INSTALLATION).values(master_key=b"kept"))
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(PortRejected, match=r"9999.*newer version"):
        await schema.upgrade(database_url)
    assert not await schema.is_current(database.reads)
    async with database.transactions.connect() as connection:
        assert await connection.scalar(text("SELECT master_key FROM installation")) == b"kept"


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(PortUnavailable):
        await schema.upgrade("postgresql://nobody@127.0.0.1:9/nothing")
    with pytest.raises(PortUnavailable):
        await schema.current("postgresql://nobody@127.0.0.1:9/nothing")
