import asyncio

from sqlalchemy import text

from adapters.persistence.database import Database

_WAITING = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")


async def somebody_waits(database: Database, *, number: int = 1) -> None:
    """Return once so many connections wait for what another transaction has locked."""
    async with asyncio.timeout(30.0), database.reads.connect() as connection:
        while (await connection.execute(_WAITING)).scalar_one() < number:  # noqa: ASYNC110 - what is awaited has no event to set
            await asyncio.sleep(0.01)
