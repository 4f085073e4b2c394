from typing import final

from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncEngine

from adapters.persistence.api_key_repository import to_api_key
from adapters.persistence.errors import translated
from adapters.persistence.tables import API_KEYS, MEMBERSHIPS, SESSIONS, USERS
from application.ports.credentials import Credentials, Standing
from domain.credential import ApiKey
from domain.permission import Role
from domain.user import SessionId, UserId
from domain.workspace import WorkspaceId

_BY_DIGEST = select(API_KEYS).where(API_KEYS.c.digest == bindparam("digest"))
# One row a membership, and one of nulls where there is none.
_STANDING = (
    select(SESSIONS.c.expires_at, USERS.c.administrator, MEMBERSHIPS.c.workspace_id, MEMBERSHIPS.c.role)
    .select_from(
        SESSIONS.join(USERS, USERS.c.id == SESSIONS.c.user_id).outerjoin(
            MEMBERSHIPS, MEMBERSHIPS.c.user_id == USERS.c.id
        )
    )
    .where(
        SESSIONS.c.id == bindparam("session"),
        USERS.c.id == bindparam("user"),
        SESSIONS.c.ended_at.is_(None),
        USERS.c.deleted_at.is_(None),
    )
)


@final
class SqlCredentials(Credentials):
    """API keys and users in one round trip each, past any transaction."""

    def __init__(self, reads: AsyncEngine) -> None:
        self._reads = reads

    async def api_key(self, digest: bytes) -> ApiKey | None:
        with translated():
            async with self._reads.connect() as connection:
                row = (await connection.execute(_BY_DIGEST, {"digest": digest})).one_or_none()
        return None if row is None else to_api_key(row)

    async def standing(self, user: UserId, session: SessionId) -> Standing | None:
        with translated():
            async with self._reads.connect() as connection:
                rows = (await connection.execute(_STANDING, {"user": user, "session": session})).all()
        if not rows:
            return None
        return Standing(
            ends_at=rows[0].expires_at,
            administrator=rows[0].administrator,
            roles={WorkspaceId(row.workspace_id): Role(row.role) for row in rows if row.workspace_id is not None},
        )
