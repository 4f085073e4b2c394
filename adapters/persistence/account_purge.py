from datetime import datetime
from typing import final

from sqlalchemy import delete, or_

from adapters.persistence.connection import SqlConnection
from adapters.persistence.tables import LOGIN_FAILURES, ONE_TIME_LINKS, REFRESH_TOKENS, SESSIONS
from application.ports.accounts import AccountPurge


@final
class SqlAccountPurge(AccountPurge):
    """What has run out, removed from PostgreSQL."""

    def __init__(self, connection: SqlConnection) -> None:
        self._connection = connection

    async def sessions(self, before: datetime) -> int:
        gone = await self._connection.execute(
            delete(SESSIONS).where(or_(SESSIONS.c.expires_at < before, SESSIONS.c.ended_at < before))
        )
        await self._connection.execute(delete(REFRESH_TOKENS).where(REFRESH_TOKENS.c.used_at < before))
        return gone.rowcount

    async def links(self, before: datetime) -> int:
        gone = await self._connection.execute(
            delete(ONE_TIME_LINKS).where(or_(ONE_TIME_LINKS.c.expires_at < before, ONE_TIME_LINKS.c.used_at < before))
        )
        return gone.rowcount

    async def failures(self, before: datetime) -> int:
        gone = await self._connection.execute(delete(LOGIN_FAILURES).where(LOGIN_FAILURES.c.last_at < before))
        return gone.rowcount
