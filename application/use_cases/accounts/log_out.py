from dataclasses import dataclass
from typing import final

from application.ports.accounts import SessionRepository
from application.ports.audit import AuditTrail
from application.ports.clock import Clock
from application.ports.notices import Notices, Topic
from application.ports.transaction import Transaction
from domain.audit import INSTANCE, AuditAction, AuditEvent
from domain.user import SessionId, UserId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LogOut:
    """End the session that the call came with: its access tokens and its refresh token are good no longer."""

    sessions: SessionRepository
    notices: Notices
    audit: AuditTrail
    transaction: Transaction
    clock: Clock

    async def __call__(self, *, user: UserId, session: SessionId) -> None:
        if await self.sessions.end(user, now=self.clock.now(), only=session):
            await self.notices.tell(Topic.CREDENTIALS)
            self.audit.note(
                AuditEvent(
                    workspace=INSTANCE,
                    action=AuditAction.USER_LOGGED_OUT,
                    subject=user,
                    details={"session": str(session)},
                )
            )
        await self.transaction.commit()
