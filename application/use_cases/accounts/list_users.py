from dataclasses import dataclass
from typing import final
from uuid import UUID

from application.ports.accounts import UserFilter, UserRepository
from application.ports.repositories import Page
from domain.user import User


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ListUsers:
    """List accounts, oldest first. Deleted ones are listed with `deleted=true` alone; `email` finds the one of it."""

    users: UserRepository

    async def __call__(self, *, limit: int, after: UUID | None, only: UserFilter) -> Page[User]:
        return await self.users.page(limit=limit, after=after, only=only)
