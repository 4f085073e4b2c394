from typing import Final, final

from sqlalchemy.ext.asyncio import AsyncEngine

from adapters.persistence.schema import is_current
from application.ports.errors import PortUnavailable
from application.ports.ping import Ping

SCHEMA: Final = "schema"


@final
class SchemaPing(Ping):
    """Compares the database's schema with the one this version was written for."""

    def __init__(self, pings: AsyncEngine) -> None:
        self._pings = pings

    @property
    def name(self) -> str:
        return SCHEMA

    async def ping(self) -> None:
        await require_current(self._pings)


async def require_current(pool: AsyncEngine) -> None:
    """Raise `PortUnavailable` of the port `SCHEMA` where the database's schema is another than this version's."""
    if not await is_current(pool):
        raise PortUnavailable(
            SCHEMA, "schema_outdated: the database does not have this version's schema; run `facepass db upgrade`"
        )
