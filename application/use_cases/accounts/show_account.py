from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from application.ports.accounts import MembershipRepository, UserRepository
from domain.user import User, UserId
from domain.workspace import Membership


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ShowAccount:
    """Show who you are, and your role in each workspace that you are a member of."""

    users: UserRepository
    memberships: MembershipRepository

    async def __call__(self, *, user: UserId) -> tuple[User, Sequence[Membership]]:
        return await self.users.get(user), await self.memberships.of_user(user)
