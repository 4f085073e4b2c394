import asyncio
from typing import final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from adapters.persistence.errors import PORT, translated
from application.ports.ping import Ping

_PATIENCE = 2.0


@final
class DatabasePing(Ping):
    """Asks PostgreSQL for nothing, over a connection that nothing else can take (`Database.pings`)."""

    def __init__(self, pings: AsyncEngine) -> None:
        self._pings = pings

    @property
    def name(self) -> str:
        return PORT

    async def ping(self) -> None:
        with translated():
            async with asyncio.timeout(_PATIENCE), self._pings.connect() as connection:
                await connection.execute(text("SELECT 1"))
