from dataclasses import dataclass
from typing import final
from uuid import UUID

from application.ports.accounts import MembershipRepository
from application.ports.repositories import Page, WorkspaceRepository
from domain.credential import Principal
from domain.permission import Permission, Role
from domain.workspace import Workspace, WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ListWorkspaces:
    """List the workspaces that one is a member of, each with one's role; all of them for an instance administrator."""

    workspaces: WorkspaceRepository
    memberships: MembershipRepository

    async def __call__(
        self, *, viewer: Principal, limit: int, after: UUID | None
    ) -> tuple[Page[Workspace], dict[WorkspaceId, Role]]:
        """Return a page, and the viewer's roles."""
        own = [] if viewer.user is None else await self.memberships.of_user(viewer.user)
        roles = {one.workspace: one.role for one in own}
        among = None if Permission.ADMINISTER in viewer.permissions else list(roles)
        return await self.workspaces.page(limit=limit, after=after, among=among), roles
