from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import final

from application.use_cases.accounts.create_user import CreatedUser, CreateUser, NewUser
from application.use_cases.batch import each
from domain.errors import FacepassError
from domain.user import UserId

Creation = Callable[[], AbstractAsyncContextManager[CreateUser]]
"""Opens a unit of work of its own, with a transaction of its own, and closes it."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CreateUsers:
    """Make up to 100 accounts. Each stands for itself: one that is refused keeps none of the others out."""

    creation: Creation

    async def __call__(
        self, users: Sequence[NewUser], *, made_by: UserId | None = None
    ) -> Sequence[CreatedUser | FacepassError]:
        async def one(user: NewUser) -> CreatedUser:
            async with self.creation() as create:
                return await create(user, made_by=made_by)

        return await each(users, one)
