from dataclasses import dataclass
from typing import final

from application.ports.accounts import Link, LinkPurpose, LinkRepository, MembershipRepository, UserRepository
from application.ports.clock import Clock
from application.ports.keyed_hash import KeyedHash
from application.use_cases.accounts.new_link import link_digest
from domain.errors import LinkInvalid
from domain.permission import Role, may_give
from domain.user import UserId
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TakeInvitation:
    """Use up an invitation, as long as whoever made it may still give what it gives. A part of other use cases.

    So nobody comes back by an invitation of their own, and nobody leaves one behind.
    """

    links: LinkRepository
    users: UserRepository
    memberships: MembershipRepository
    keyed_hash: KeyedHash
    clock: Clock

    async def __call__(self, invitation: str, *, email: str) -> Link:
        """Return it. Raises `LinkInvalid`."""
        link = await self.links.take(
            link_digest(self.keyed_hash, invitation), purpose=LinkPurpose.INVITATION, now=self.clock.now(), email=email
        )
        if link.made_by is not None and link.workspace is not None:
            given_by = await self._role(link.workspace, link.made_by)
            if not may_give(given_by, link.role or Role.VIEWER):
                raise LinkInvalid("whoever made this invitation may not give it any more: ask for another")
        return link

    async def _role(self, workspace: WorkspaceId, user: UserId) -> Role | None:
        if (await self.users.get(user)).deleted_at is not None:
            return None
        found = (await self.memberships.page(workspace, limit=1, after=None, user=user)).items
        return found[0].role if found else None
