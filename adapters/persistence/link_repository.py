from datetime import datetime
from typing import Any, final

from sqlalchemy import Row, delete, insert, or_, select, update

from adapters.persistence.connection import SqlConnection
from adapters.persistence.tables import ONE_TIME_LINKS
from adapters.persistence.user_repository import email_digest
from application.ports.accounts import Link, LinkPurpose, LinkRepository
from application.ports.keyed_hash import KeyedHash
from domain.errors import LinkInvalid
from domain.permission import Role
from domain.user import UserId
from domain.workspace import WorkspaceId


@final
class SqlLinkRepository(LinkRepository):
    """One-time links in PostgreSQL."""

    def __init__(self, connection: SqlConnection, keyed_hash: KeyedHash) -> None:
        self._connection = connection
        self._keyed_hash = keyed_hash

    async def add(self, link: Link, *, digest: bytes) -> None:
        columns = ONE_TIME_LINKS.c
        if link.purpose is LinkPurpose.PASSWORD:
            await self._connection.execute(
                delete(ONE_TIME_LINKS).where(columns.user_id == link.user, columns.purpose == link.purpose)
            )
        await self._connection.execute(
            insert(ONE_TIME_LINKS).values(
                digest=digest,
                purpose=link.purpose,
                user_id=link.user,
                workspace_id=link.workspace,
                role=link.role,
                email_digest=self._digest(link.email),
                created_at=link.created_at,
                expires_at=link.expires_at,
            )
        )

    async def find(self, digest: bytes, *, now: datetime) -> Link:
        columns = ONE_TIME_LINKS.c
        found = await self._connection.execute(
            select(ONE_TIME_LINKS).where(columns.digest == digest, columns.used_at.is_(None), columns.expires_at > now)
        )
        return _to_link(found.one_or_none())

    async def take(self, digest: bytes, *, purpose: LinkPurpose, now: datetime, email: str | None = None) -> Link:
        columns = ONE_TIME_LINKS.c
        taken = await self._connection.execute(
            update(ONE_TIME_LINKS)
            .where(
                columns.digest == digest,
                columns.purpose == purpose,
                columns.used_at.is_(None),
                columns.expires_at > now,
                or_(columns.email_digest.is_(None), columns.email_digest == self._digest(email)),
            )
            .values(used_at=now)
            .returning(ONE_TIME_LINKS)
        )
        return _to_link(taken.one_or_none())

    def _digest(self, email: str | None) -> bytes | None:
        return None if email is None else email_digest(self._keyed_hash, email)


def _to_link(row: Row[Any] | None) -> Link:
    if row is None:
        raise LinkInvalid("this link was used, has expired, or is for somebody else: ask for another")
    return Link(
        purpose=LinkPurpose(row.purpose),
        user=None if row.user_id is None else UserId(row.user_id),
        workspace=None if row.workspace_id is None else WorkspaceId(row.workspace_id),
        role=None if row.role is None else Role(row.role),
        created_at=row.created_at,
        expires_at=row.expires_at,
    )
