from dataclasses import dataclass
from typing import final
from uuid import UUID

from application.ports.accounts import InvitationRepository, Link
from application.ports.clock import Clock
from application.ports.repositories import Page
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ListInvitations:
    """List a workspace's invitations that can still be used, oldest first. Their tokens were shown once."""

    invitations: InvitationRepository
    clock: Clock

    async def __call__(self, *, workspace: WorkspaceId, limit: int, after: UUID | None) -> Page[Link]:
        return await self.invitations.page(workspace, limit=limit, after=after, now=self.clock.now())
