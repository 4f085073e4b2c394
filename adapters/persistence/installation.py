from typing import final

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from adapters.persistence.errors import PORT, translated
from adapters.persistence.tables import INSTALLATION
from application.ports.errors import PortRejected


@final
class InstallationRow:
    """What a database remembers of the installation that its data belongs to."""

    def __init__(self, reads: AsyncEngine) -> None:
        self._reads = reads

    async def master_key(self) -> bytes | None:
        """Return the fingerprint of the master key, None before the first start. Raises `PortUnavailable`."""
        with translated():
            async with self._reads.connect() as connection:
                found: bytes | None = await connection.scalar(select(INSTALLATION.c.master_key))
                return found

    async def remember_master_key(self, fingerprint: bytes) -> None:
        """Keep the fingerprint, or compare it with the one kept; it never changes.

        Raises `PortRejected` where this database was filled under another master key, and `PortUnavailable`.
        """
        with translated():
            async with self._reads.connect() as connection:
                await connection.execute(insert(INSTALLATION).values(master_key=fingerprint).on_conflict_do_nothing())
        if await self.master_key() != fingerprint:
            raise PortRejected(
                PORT,
                "its data was sealed under another master key: FACEPASS_MASTER_KEY_FILE must name the file that was"
                " in use when this database was first started, or a backup of it",
            )
