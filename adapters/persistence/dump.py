"""The record as files: each table copied out of one snapshot, and back into a database without any."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, final
from uuid import UUID

import asyncpg
from sqlalchemy.engine import make_url

from adapters.persistence.errors import PORT, translated
from adapters.persistence.tables import INDEX_STATE, LEDGER_MARK, METADATA, ONE_TIME_LINKS, REFRESH_TOKENS, SESSIONS
from application.ports.errors import PortRejected

LEFT_OUT: Final = frozenset({INDEX_STATE, LEDGER_MARK, SESSIONS, REFRESH_TOKENS, ONE_TIME_LINKS})
"""Which index answers, and how much of the ledger is known, is a matter of where it is restored to; and nobody is
signed in again by a restored session."""

_APPLICATION: Final = "facepass-dump"
_PATIENCE: Final = 30.0

Written = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpedTable:
    """One table of a dump."""

    name: str
    columns: Sequence[str]


@final
class Snapshot:
    """The record as it was at one moment, however long it is read and whatever is written meanwhile."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]", server: str) -> None:
        """Take a connection whose transaction is REPEATABLE READ."""
        self._connection = connection
        self.server = server
        """The server's version."""
        self.tables: Final[Sequence[DumpedTable]] = [
            DumpedTable(name=str(table.name), columns=[str(column.name) for column in table.columns])
            for table in METADATA.sorted_tables
            if table not in LEFT_OUT
        ]
        """Whoever is pointed at before who points at it."""

    async def copy(self, table: DumpedTable, written: Written) -> int:
        """Give all rows of a table in PostgreSQL's binary format; return their number. Raises `PortUnavailable`."""
        columns = ", ".join(f'"{column}"' for column in table.columns)
        with translated():
            done = await self._connection.copy_from_query(
                f'SELECT {columns} FROM "{table.name}"',  # noqa: S608 - our own names
                output=written,
                format="binary",
            )
        return int(done.rpartition(" ")[2])


@asynccontextmanager
async def snapshot(url: str) -> AsyncIterator[Snapshot]:
    """Hold a snapshot for a block. Raises `PortUnavailable`."""
    async with _connected(url) as connection:
        with translated():
            await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            server = await connection.fetchval("SHOW server_version")
        yield Snapshot(connection, str(server))


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupied:
    """What is in a database that is to be restored to."""

    schema: bool
    """Whether there is any table of ours."""
    workspaces: int
    others: int
    """Connections of services and commands that use it now."""
    erasures: frozenset[UUID] = frozenset()
    """All that it remembers, by id."""


async def occupied(url: str) -> Occupied:
    """Look at a database. Raises `PortUnavailable`."""
    async with _connected(url) as connection:
        with translated():
            schema = await connection.fetchval("SELECT to_regclass('public.workspaces') IS NOT NULL")
            workspaces = await connection.fetchval("SELECT count(*) FROM workspaces") if schema else 0
            others = await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
                " AND application_name LIKE 'facepass%'"
            )
            remembers = await connection.fetchval("SELECT to_regclass('public.erasures') IS NOT NULL")
            erasures = await connection.fetch("SELECT id FROM erasures") if remembers else []
    return Occupied(
        schema=schema, workspaces=workspaces, others=others, erasures=frozenset(row["id"] for row in erasures)
    )


async def emptied(url: str) -> None:
    """Drop every table of ours, whatever is in them; other ones stay. Raises `PortUnavailable`."""
    names = ", ".join(f'"{name}"' for name in (*METADATA.tables, "alembic_version"))
    async with _connected(url) as connection:
        with translated():
            async with connection.transaction():
                await connection.execute(f"DROP TABLE IF EXISTS {names} CASCADE")
                await connection.execute("DROP FUNCTION IF EXISTS audit_is_append_only")


async def load(url: str, tables: Sequence[DumpedTable], content: Callable[[DumpedTable], AsyncIterator[bytes]]) -> None:
    """Fill empty tables, all or none, in this order. Raises `PortUnavailable`, and `PortRejected` for a bad file."""
    known = {table.name for table in METADATA.sorted_tables}
    async with _connected(url) as connection:
        with translated():
            async with connection.transaction():
                for table in tables:
                    if table.name not in known:
                        raise PortRejected(PORT, f"the backup has a table {table.name!r} that is unknown here")
                    try:
                        await connection.copy_to_table(
                            table.name, source=content(table), columns=list(table.columns), format="binary"
                        )
                    except asyncpg.DataError as error:
                        raise PortRejected(PORT, f"the backup's table {table.name!r} cannot be read") from error


@asynccontextmanager
async def _connected(url: str) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    address = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with translated():
        connection = await asyncpg.connect(
            address,
            timeout=_PATIENCE,
            server_settings={
                "application_name": _APPLICATION,
                "timezone": "UTC",
                # Between two tables a large file may be written.
                "idle_in_transaction_session_timeout": "0",
            },
        )
    try:
        yield connection
    finally:
        await connection.close()
