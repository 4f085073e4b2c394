from datetime import datetime
from typing import final

from sqlalchemy import case, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from adapters.persistence.connection import SqlConnection
from adapters.persistence.tables import LOGIN_FAILURES
from adapters.persistence.user_repository import email_digest
from application.ports.accounts import LoginFailures
from application.ports.keyed_hash import KeyedHash
from domain.user import lock_after


@final
class SqlLoginFailures(LoginFailures):
    """Failed logins in PostgreSQL, and so the same on every node."""

    def __init__(self, connection: SqlConnection, keyed_hash: KeyedHash) -> None:
        self._connection = connection
        self._keyed_hash = keyed_hash

    async def begin(self, email: str, *, now: datetime) -> datetime | None:
        columns = LOGIN_FAILURES.c
        digest = email_digest(self._keyed_hash, email)
        first = insert(LOGIN_FAILURES).values(email_digest=digest, failures=1, last_at=now, locked_until=now)
        # The row is locked from here on, also where nothing is counted.
        counted = await self._connection.execute(
            first.on_conflict_do_update(
                index_elements=[columns.email_digest],
                set_={"failures": columns.failures + 1, "last_at": now},
                where=columns.locked_until <= now,
            ).returning(columns.failures)
        )
        failures = counted.scalar_one_or_none()
        this = columns.email_digest == digest
        if failures is None:
            found = await self._connection.execute(select(columns.locked_until).where(this))
            until: datetime | None = found.scalar_one_or_none()
            return until
        if lock := lock_after(failures):
            await self._connection.execute(update(LOGIN_FAILURES).where(this).values(locked_until=now + lock))
        return None

    async def take_back(self, email: str, *, begun: datetime) -> None:
        columns = LOGIN_FAILURES.c
        is_last = columns.last_at == begun
        await self._connection.execute(
            update(LOGIN_FAILURES)
            .where(columns.email_digest == email_digest(self._keyed_hash, email))
            .values(
                failures=func.greatest(columns.failures - 1, 0),
                locked_until=case((is_last, begun), else_=columns.locked_until),
            )
        )

    async def forget(self, email: str) -> None:
        await self._connection.execute(
            delete(LOGIN_FAILURES).where(LOGIN_FAILURES.c.email_digest == email_digest(self._keyed_hash, email))
        )
