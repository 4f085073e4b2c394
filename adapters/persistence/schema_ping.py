from typing import Final, final

from sqlalchemy.ext.asyncio import AsyncEngine

from adapters.persistence.schema import is_current
from application.ports.errors import PortUnavailable
from application.ports.ping import Ping

_NAME: Final = "schema"


@final
class SchemaPing(Ping):
    """Compares the database's schema with the one this version was written for."""

    def __init__(self, reads: AsyncEngine) -> None:
        self._reads = reads

    @property
    def name(self) -> str:
        return _NAME

    async def ping(self) -> None:
        if not await is_current(self._reads):
            raise PortUnavailable(_NAME, "schema_outdated: run `facepass db upgrade`")
