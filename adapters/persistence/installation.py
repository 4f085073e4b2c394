from typing import final

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from adapters.persistence.connection import SqlConnection
from adapters.persistence.tables import INSTALLATION


@final
class InstallationRow:
    """What a database remembers of the master key that it was first started with."""

    def __init__(self, connection: SqlConnection) -> None:
        self._connection = connection

    async def master_key(self) -> bytes | None:
        """Return the fingerprint of the master key, None before the first start. Raises `PortUnavailable`."""
        found = await self._connection.execute(select(INSTALLATION.c.master_key))
        fingerprint: bytes | None = found.scalar()
        return fingerprint

    async def remember(self, fingerprint: bytes) -> None:
        """Keep the fingerprint where none is kept yet. Raises `PortUnavailable`."""
        await self._connection.execute(insert(INSTALLATION).values(master_key=fingerprint).on_conflict_do_nothing())
