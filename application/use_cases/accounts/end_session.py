from dataclasses import dataclass
from typing import final

from application.ports.accounts import SessionRepository
from application.ports.audit import AuditTrail
from application.ports.clock import Clock
from application.ports.notices import Notices, Topic
from application.ports.transaction import Transaction
from domain.audit import INSTANCE, AuditAction, AuditEvent
from domain.errors import SessionNotFound
from domain.user import SessionId, UserId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EndSession:
    """End one of your own sessions, on whichever device it is; it holds at once, on every node."""

    sessions: SessionRepository
    notices: Notices
    audit: AuditTrail
    transaction: Transaction
    clock: Clock

    async def __call__(self, *, user: UserId, session: SessionId) -> None:
        if not await self.sessions.end(user, now=self.clock.now(), only=session):
            raise SessionNotFound("you have no such session, or it has ended")
        await self.notices.tell(Topic.CREDENTIALS)
        self.audit.note(
            AuditEvent(
                workspace=INSTANCE,
                action=AuditAction.SESSION_ENDED,
                subject=user,
                details={"session": str(session)},
            )
        )
        await self.transaction.commit()
