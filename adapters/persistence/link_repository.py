from datetime import datetime
from typing import Any, final
from uuid import UUID

from sqlalchemy import ColumnElement, Row, and_, delete, insert, or_, select, update

from adapters.persistence.connection import SqlConnection
from adapters.persistence.pages import page, stretch
from adapters.persistence.tables import ONE_TIME_LINKS
from adapters.persistence.user_repository import email_digest
from adapters.persistence.workspace_lock import locked_workspaces
from application.ports.accounts import InvitationRepository, Link, LinkPurpose, LinkRepository
from application.ports.keyed_hash import KeyedHash
from application.ports.repositories import Page
from domain.errors import InvitationNotFound, LinkInvalid
from domain.permission import Role
from domain.user import LinkId, UserId
from domain.workspace import WorkspaceId


@final
class SqlLinkRepository(LinkRepository):
    """One-time links in PostgreSQL."""

    def __init__(self, connection: SqlConnection, keyed_hash: KeyedHash) -> None:
        self._connection = connection
        self._keyed_hash = keyed_hash

    async def add(self, link: Link, *, digest: bytes) -> None:
        if link.purpose is LinkPurpose.PASSWORD and link.user is not None:
            await self.withdraw(link.user)
        await self._connection.execute(
            insert(ONE_TIME_LINKS).values(
                digest=digest,
                id=link.id,
                made_by=link.made_by,
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
        # Where it leads, before the link itself: whoever becomes a member by it holds both.
        await locked_workspaces(self._connection, select(columns.workspace_id).where(columns.digest == digest))
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

    async def withdraw(self, user: UserId) -> None:
        columns = ONE_TIME_LINKS.c
        await self._connection.execute(
            delete(ONE_TIME_LINKS).where(columns.user_id == user, columns.purpose == LinkPurpose.PASSWORD)
        )

    async def withdraw_of(self, user: UserId) -> None:
        columns = ONE_TIME_LINKS.c
        await self._connection.execute(
            delete(ONE_TIME_LINKS).where(columns.made_by == user, columns.purpose == LinkPurpose.PASSWORD)
        )

    def _digest(self, email: str | None) -> bytes | None:
        return None if email is None else email_digest(self._keyed_hash, email)


@final
class SqlInvitationRepository(InvitationRepository):
    """Invitations to workspaces in PostgreSQL, where the other one-time links are."""

    def __init__(self, connection: SqlConnection) -> None:
        self._connection = connection

    async def page(self, workspace: WorkspaceId, *, limit: int, after: UUID | None, now: datetime) -> Page[Link]:
        listed = select(ONE_TIME_LINKS).where(_open(workspace, now))
        found = await self._connection.execute(stretch(listed, ONE_TIME_LINKS.c.id, limit=limit, after=after))
        return page(found.all(), _to_link, limit=limit)

    async def withdraw(self, workspace: WorkspaceId, invitation: LinkId, *, now: datetime) -> Link:
        withdrawn = await self._connection.execute(
            delete(ONE_TIME_LINKS)
            .where(_open(workspace, now), ONE_TIME_LINKS.c.id == invitation)
            .returning(ONE_TIME_LINKS)
        )
        row = withdrawn.one_or_none()
        if row is None:
            raise InvitationNotFound("no such invitation, or it was used or has expired")
        return _to_link(row)

    async def withdraw_of(self, user: UserId, *, workspace: WorkspaceId | None = None) -> None:
        columns = ONE_TIME_LINKS.c
        theirs = (columns.made_by == user) & (columns.purpose == LinkPurpose.INVITATION)
        if workspace is not None:
            theirs &= columns.workspace_id == workspace
        await self._connection.execute(delete(ONE_TIME_LINKS).where(theirs))


def _open(workspace: WorkspaceId, now: datetime) -> ColumnElement[bool]:
    columns = ONE_TIME_LINKS.c
    return and_(
        columns.workspace_id == workspace,
        columns.purpose == LinkPurpose.INVITATION,
        columns.used_at.is_(None),
        columns.expires_at > now,
    )


def _to_link(row: Row[Any] | None) -> Link:
    if row is None:
        raise LinkInvalid("this link was used, has expired, or is for somebody else: ask for another")
    return Link(
        id=LinkId(row.id),
        made_by=None if row.made_by is None else UserId(row.made_by),
        purpose=LinkPurpose(row.purpose),
        user=None if row.user_id is None else UserId(row.user_id),
        workspace=None if row.workspace_id is None else WorkspaceId(row.workspace_id),
        role=None if row.role is None else Role(row.role),
        created_at=row.created_at,
        expires_at=row.expires_at,
    )
