from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from application.ports.accounts import SessionRepository
from application.ports.clock import Clock
from domain.user import Session, UserId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ListSessions:
    """List your own sessions that are open, newest first: where you are signed in."""

    sessions: SessionRepository
    clock: Clock

    async def __call__(self, *, user: UserId) -> Sequence[Session]:
        now = self.clock.now()
        return [session for session in await self.sessions.of_user(user) if session.open(now)]
