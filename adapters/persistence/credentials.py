from typing import final

from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncEngine

from adapters.persistence.api_key_repository import to_api_key
from adapters.persistence.errors import translated
from adapters.persistence.tables import API_KEYS
from application.ports.credentials import Credentials
from domain.credential import ApiKey

_BY_DIGEST = select(API_KEYS).where(API_KEYS.c.digest == bindparam("digest"))


@final
class SqlCredentials(Credentials):
    """API keys in one round trip each, past any transaction."""

    def __init__(self, reads: AsyncEngine) -> None:
        self._reads = reads

    async def api_key(self, digest: bytes) -> ApiKey | None:
        with translated():
            async with self._reads.connect() as connection:
                row = (await connection.execute(_BY_DIGEST, {"digest": digest})).one_or_none()
        return None if row is None else to_api_key(row)
