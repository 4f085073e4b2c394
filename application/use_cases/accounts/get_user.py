from dataclasses import dataclass
from typing import final

from application.ports.accounts import UserRepository
from domain.user import User, UserId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GetUser:
    """Show an account, a deleted one too."""

    users: UserRepository

    async def __call__(self, *, user: UserId) -> User:
        return await self.users.get(user)
