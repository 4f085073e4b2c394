"""What an operator does with the database itself: its schema, and the private server's state."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from sqlalchemy.engine import make_url

from adapters.embedded.postgres import EmbeddedPostgres, EmbeddedPostgresError
from adapters.persistence import schema
from domain.errors import PortError
from entrypoints.settings import Settings
from entrypoints.wiring.keys import sealing_at
from entrypoints.wiring.start_error import StartError


class DatabaseStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where the database is and how it is."""

    kind: str
    """`embedded`, or `server`: somebody else runs it."""
    where: str
    """A folder, or an address without its password."""
    running: bool
    """Whether it takes connections; asking starts nothing."""
    revision: str | None
    """What the schema is at; None where nothing was ever made, or nobody can be asked."""
    newest: str
    """What this version of facepass wants."""
    processes: int | None
    """Processes that use the private server; None for another's."""
    binaries: str | None
    """Where `psql` and `pg_dump` for the private server are."""


async def upgrade(settings: Settings) -> str | None:
    """Bring the schema to the newest revision and return it."""
    async with database_server(settings) as url:
        await schema.upgrade(url, sealing=sealing_at(url, settings))
        return await schema.current(url)


async def downgrade(settings: Settings, revision: str) -> str | None:
    """Take the schema back to a revision and return it, None for nothing at all."""
    async with database_server(settings) as url:
        await schema.downgrade(url, revision, sealing=sealing_at(url, settings))
        return await schema.current(url)


async def current(settings: Settings) -> tuple[str | None, str]:
    """Return the schema's revision and the newest there is."""
    async with database_server(settings) as url:
        return await schema.current(url), schema.head()


async def revision(settings: Settings, message: str) -> None:
    """Write a migration from what the tables say and the database has not."""
    async with database_server(settings) as url:
        await schema.revision(url, message)


async def status(settings: Settings) -> DatabaseStatus:
    """Look at the database without starting anything."""
    if settings.database.url is not None:
        return await _status_of_server(settings.database.url)
    server = EmbeddedPostgres(settings.data_path / "postgres")
    try:
        found = await asyncio.to_thread(server.status)
        at = None
        if found.ready:
            async with database_server(settings) as url:
                at = await schema.current(url)
    except EmbeddedPostgresError as error:
        raise StartError(str(error)) from error
    return DatabaseStatus(
        kind="embedded",
        where=str(found.folder),
        running=found.ready,
        revision=at,
        newest=schema.head(),
        processes=found.owners,
        binaries=str(found.binaries),
    )


async def ended(settings: Settings, *, timeout: float) -> bool:  # noqa: ASYNC109 - the server's own wait takes it
    """Whether the private server has ended within so many seconds, after its last user has gone."""
    return await asyncio.to_thread(EmbeddedPostgres(settings.data_path / "postgres").wait_ended, timeout)


async def _status_of_server(url: str) -> DatabaseStatus:
    try:
        at, running = await schema.current(url), True
    except PortError:
        at, running = None, False
    return DatabaseStatus(
        kind="server",
        where=make_url(url).render_as_string(hide_password=True),
        running=running,
        revision=at,
        newest=schema.head(),
        processes=None,
        binaries=None,
    )


@asynccontextmanager
async def database_server(settings: Settings) -> AsyncIterator[str]:
    """Start the private server where no other is set; unlike a container, leave its schema alone."""
    if settings.database.url is not None:
        yield settings.database.url
        return
    server = EmbeddedPostgres(settings.data_path / "postgres")
    try:
        url = await asyncio.to_thread(server.start)
    except EmbeddedPostgresError as error:
        raise StartError(str(error)) from error
    try:
        yield url
    finally:
        await asyncio.to_thread(server.stop)
