from collections.abc import Sequence
from typing import Any, final
from uuid import UUID

from sqlalchemy import ColumnElement, Row, delete, exists, select, update
from sqlalchemy.dialects.postgresql import insert

from adapters.persistence.connection import SqlConnection
from adapters.persistence.pages import stretch
from adapters.persistence.tables import MEMBERSHIPS, USERS
from adapters.persistence.workspace_lock import locked_workspaces
from application.ports.accounts import MembershipRepository
from application.ports.repositories import Page
from domain.errors import FacepassError, LastOwner, MemberExists, MemberNotFound, VersionMismatch
from domain.permission import Role
from domain.user import UserId
from domain.workspace import Membership, WorkspaceId


@final
class SqlMembershipRepository(MembershipRepository):
    """Memberships in PostgreSQL."""

    def __init__(self, connection: SqlConnection) -> None:
        self._connection = connection

    async def add(self, membership: Membership) -> None:
        owners = await self._owners(membership.workspace)
        if owners and membership.role is not Role.OWNER and not any(owners.values()):
            raise LastOwner("the accounts of this workspace's owners are deleted: restore one, or add an owner first")
        added = await self._connection.execute(
            insert(MEMBERSHIPS)
            .values(
                workspace_id=membership.workspace,
                user_id=membership.user,
                role=membership.role,
                created_at=membership.created_at,
            )
            # Nothing to do instead of an error, which would end the transaction.
            .on_conflict_do_nothing(index_elements=[MEMBERSHIPS.c.workspace_id, MEMBERSHIPS.c.user_id])
        )
        if not added.rowcount:
            raise MemberExists("the user is a member of this workspace already")

    async def page(
        self, workspace: WorkspaceId, *, limit: int, after: UUID | None, user: UserId | None = None
    ) -> Page[Membership]:
        listed = select(MEMBERSHIPS).where(MEMBERSHIPS.c.workspace_id == workspace)
        if user is not None:
            listed = listed.where(MEMBERSHIPS.c.user_id == user)
        found = await self._connection.execute(stretch(listed, MEMBERSHIPS.c.user_id, limit=limit, after=after))
        rows = found.all()
        return Page(
            items=tuple(_to_membership(row) for row in rows[:limit]),
            next_after=rows[limit - 1].user_id if len(rows) > limit else None,
        )

    async def of_user(self, user: UserId) -> Sequence[Membership]:
        found = await self._connection.execute(
            select(MEMBERSHIPS).where(MEMBERSHIPS.c.user_id == user).order_by(MEMBERSHIPS.c.workspace_id)
        )
        return [_to_membership(row) for row in found]

    async def save(self, membership: Membership, *, was: Role) -> None:
        this = _is(membership.workspace, membership.user) & (MEMBERSHIPS.c.role == was)
        if membership.role is not Role.OWNER:
            await self._require_other_owners(membership.workspace, membership.user)
        changed = await self._connection.execute(update(MEMBERSHIPS).where(this).values(role=membership.role))
        if not changed.rowcount:
            raise await self._missing(membership.workspace, membership.user)

    async def remove(self, workspace: WorkspaceId, user: UserId, *, was: Role) -> None:
        await self._require_other_owners(workspace, user)
        removed = await self._connection.execute(
            delete(MEMBERSHIPS).where(_is(workspace, user), MEMBERSHIPS.c.role == was)
        )
        if not removed.rowcount:
            raise await self._missing(workspace, user)

    async def _missing(self, workspace: WorkspaceId, user: UserId) -> FacepassError:
        if (await self._connection.execute(select(exists().where(_is(workspace, user))))).scalar_one():
            return VersionMismatch("the member's role was changed meanwhile: read it again")
        return MemberNotFound("no such member")

    async def _require_other_owners(self, workspace: WorkspaceId, user: UserId) -> None:
        """Raise `LastOwner` where this user is an owner and no other one can sign in."""
        owners = await self._owners(workspace)
        if user in owners and not any(can for owner, can in owners.items() if owner != user):
            raise LastOwner("this is the workspace's last owner: make somebody else one first")

    async def _owners(self, workspace: WorkspaceId) -> dict[UserId, bool]:
        """Return a workspace's owners, and whether each can sign in.

        The workspace is locked until the transaction ends: of two owners who go at one moment, the second sees the
        first gone, and so does whoever adds a member while an owner is deleted.
        """
        await locked_workspaces(self._connection, [workspace])
        found = await self._connection.execute(
            select(MEMBERSHIPS.c.user_id, USERS.c.deleted_at)
            .join(USERS, USERS.c.id == MEMBERSHIPS.c.user_id)
            .where(MEMBERSHIPS.c.workspace_id == workspace, MEMBERSHIPS.c.role == Role.OWNER)
        )
        return {UserId(row.user_id): row.deleted_at is None for row in found}


def _is(workspace: WorkspaceId, user: UserId) -> ColumnElement[bool]:
    return (MEMBERSHIPS.c.workspace_id == workspace) & (MEMBERSHIPS.c.user_id == user)


def _to_membership(row: Row[Any]) -> Membership:
    return Membership(
        workspace=WorkspaceId(row.workspace_id),
        user=UserId(row.user_id),
        role=Role(row.role),
        created_at=row.created_at,
    )
