from datetime import datetime
from typing import final

from sqlalchemy import update

from adapters.persistence.connection import SqlConnection
from adapters.persistence.tables import USERS
from application.ports.accounts import LoginRecord
from domain.user import UserId


@final
class SqlLoginRecord(LoginRecord):
    """Logins in PostgreSQL, in their users' rows."""

    def __init__(self, connection: SqlConnection) -> None:
        self._connection = connection

    async def logged_in(self, user: UserId, *, at: datetime, password_hash: str | None = None) -> None:
        changed: dict[str, object] = {"last_login_at": at}
        if password_hash is not None:
            changed["password"] = password_hash
        await self._connection.execute(update(USERS).where(USERS.c.id == user).values(changed))
