from collections.abc import Sequence
from datetime import datetime
from typing import Any, final

from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from adapters.persistence.connection import SqlConnection
from adapters.persistence.errors import translated
from adapters.persistence.tables import SIGNING_KEYS
from application.ports.access_tokens import SigningKey, SigningKeyId, SigningKeyRecord, SigningKeys


@final
class SqlSigningKeys(SigningKeys):
    """Signing keys' ids in PostgreSQL.

    Two that are begun at one moment are both good; the newer one is used, and the next one retires both.
    """

    def __init__(self, connection: SqlConnection) -> None:
        self._connection = connection

    async def in_use(self) -> SigningKey | None:
        found = await self._connection.execute(
            select(SIGNING_KEYS).where(SIGNING_KEYS.c.retires_at.is_(None)).order_by(SIGNING_KEYS.c.id.desc()).limit(1)
        )
        row = found.one_or_none()
        return None if row is None else _to_signing_key(row)

    async def begin(self, key: SigningKey, *, others_retire_at: datetime) -> None:
        retires = SIGNING_KEYS.c.retires_at
        await self._connection.execute(
            update(SIGNING_KEYS)
            .where(retires.is_(None) | (retires > others_retire_at))
            .values(retires_at=others_retire_at)
        )
        await self._connection.execute(insert(SIGNING_KEYS).values(id=key.id, created_at=key.created_at))

    async def purge(self, now: datetime) -> int:
        return (await self._connection.execute(delete(SIGNING_KEYS).where(SIGNING_KEYS.c.retires_at <= now))).rowcount


@final
class SqlSigningKeyRecord(SigningKeyRecord):
    """Signing keys' ids in one round trip, past any transaction."""

    def __init__(self, reads: AsyncEngine) -> None:
        self._reads = reads

    async def all(self) -> Sequence[SigningKey]:
        with translated():
            async with self._reads.connect() as connection:
                return [_to_signing_key(row) for row in await connection.execute(select(SIGNING_KEYS))]


def _to_signing_key(row: Row[Any]) -> SigningKey:
    return SigningKey(id=SigningKeyId(row.id), created_at=row.created_at, retires_at=row.retires_at)
