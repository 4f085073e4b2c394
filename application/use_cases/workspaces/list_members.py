from dataclasses import dataclass
from typing import final
from uuid import UUID

from application.ports.accounts import MembershipRepository, UserRepository
from application.ports.repositories import Page
from application.use_cases.workspaces.member import Member
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ListMembers:
    """List who is a member of a workspace, by user id. Somebody whose account is deleted has `deleted_at`."""

    memberships: MembershipRepository
    users: UserRepository

    async def __call__(self, *, workspace: WorkspaceId, limit: int, after: UUID | None) -> Page[Member]:
        page = await self.memberships.page(workspace, limit=limit, after=after)
        return Page(
            items=tuple([Member(user=await self.users.get(one.user), membership=one) for one in page.items]),
            next_after=page.next_after,
        )
