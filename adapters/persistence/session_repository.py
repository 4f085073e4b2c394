from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, final
from uuid import UUID

from sqlalchemy import Row, insert, select, update

from adapters.persistence.connection import SqlConnection
from adapters.persistence.tables import REFRESH_TOKENS, SESSIONS, USERS
from adapters.persistence.user_repository import key_of
from application.ports.accounts import SessionRepository
from application.ports.cipher import Cipher, Place
from domain.audit import INSTANCE
from domain.errors import UserNotFound
from domain.user import Session, SessionId, UserId

PURPOSE: Final = "agent"

_WITH_KEY = select(SESSIONS, USERS.c.data_key_id, USERS.c.wrapped).join(USERS, USERS.c.id == SESSIONS.c.user_id)


@final
class SqlSessionRepository(SessionRepository):
    """Sessions in PostgreSQL. What a client called itself is sealed under its user's data key."""

    def __init__(self, connection: SqlConnection, cipher: Cipher) -> None:
        self._connection = connection
        self._cipher = cipher

    async def add(self, session: Session, *, refresh_digest: bytes) -> None:
        found = await self._connection.execute(
            select(USERS.c.data_key_id, USERS.c.wrapped).where(USERS.c.id == session.user)
        )
        row = found.one_or_none()
        if row is None:
            raise UserNotFound("no such user")
        await self._connection.execute(
            insert(SESSIONS).values(
                id=session.id,
                user_id=session.user,
                agent=self._cipher.seal(session.agent.encode(), key=key_of(row), place=_place(session.id)),
                created_at=session.created_at,
                last_used_at=session.last_used_at,
                expires_at=session.expires_at,
                ended_at=session.ended_at,
            )
        )
        await self._keep(session, refresh_digest)

    async def take(self, refresh_digest: bytes, *, now: datetime) -> tuple[Session, bool] | None:
        tokens = REFRESH_TOKENS.c
        # Of two calls with one token the second waits here until the first has ended, and then finds it used.
        taken = await self._connection.execute(
            update(REFRESH_TOKENS)
            .where(tokens.digest == refresh_digest, tokens.used_at.is_(None))
            .values(used_at=now)
            .returning(tokens.session_id)
        )
        session = taken.scalar_one_or_none()
        first = session is not None
        if not first:
            used = await self._connection.execute(select(tokens.session_id).where(tokens.digest == refresh_digest))
            session = used.scalar_one_or_none()
        found = await self._connection.execute(_WITH_KEY.where(SESSIONS.c.id == session).with_for_update(of=SESSIONS))
        row = found.one_or_none()
        return None if row is None else (self._to_session(row), first)

    async def renew(self, session: Session, *, refresh_digest: bytes) -> None:
        await self._connection.execute(
            update(SESSIONS)
            .where(SESSIONS.c.id == session.id)
            .values(last_used_at=session.last_used_at, expires_at=session.expires_at)
        )
        await self._keep(session, refresh_digest)

    async def of_user(self, user: UserId) -> Sequence[Session]:
        found = await self._connection.execute(
            _WITH_KEY.where(SESSIONS.c.user_id == user, SESSIONS.c.ended_at.is_(None)).order_by(SESSIONS.c.id.desc())
        )
        return [self._to_session(row) for row in found]

    async def end(
        self, user: UserId, *, now: datetime, only: SessionId | None = None, but: SessionId | None = None
    ) -> Sequence[SessionId]:
        columns = SESSIONS.c
        ended = (
            update(SESSIONS)
            .where(columns.user_id == user, columns.ended_at.is_(None), columns.expires_at > now)
            .values(ended_at=now)
        )
        if only is not None:
            ended = ended.where(columns.id == only)
        if but is not None:
            ended = ended.where(columns.id != but)
        found = await self._connection.execute(ended.returning(columns.id))
        return sorted(map(SessionId, found.scalars()))

    async def _keep(self, session: Session, refresh_digest: bytes) -> None:
        await self._connection.execute(
            insert(REFRESH_TOKENS).values(
                digest=refresh_digest, session_id=session.id, created_at=session.last_used_at, used_at=None
            )
        )

    def _to_session(self, row: Row[Any]) -> Session:
        return Session(
            id=SessionId(row.id),
            user=UserId(row.user_id),
            created_at=row.created_at,
            last_used_at=row.last_used_at,
            expires_at=row.expires_at,
            agent=self._cipher.open(row.agent, key=key_of(row), place=_place(row.id)).decode(),
            ended_at=row.ended_at,
        )


def _place(session: UUID) -> Place:
    return Place(workspace=INSTANCE, subject=session, purpose=PURPOSE)
