from dataclasses import dataclass, replace
from typing import final

from application.ports.accounts import LinkRepository, LoginFailures, SessionRepository, UserRepository
from application.ports.audit import AuditTrail
from application.ports.clock import Clock
from application.ports.notices import Notices, Topic
from application.ports.transaction import Transaction
from application.use_cases.accounts.attempts import Attempts
from application.use_cases.accounts.new_password import NewPassword
from domain.audit import INSTANCE, AuditAction, AuditEvent
from domain.errors import LoginFailed
from domain.user import SessionId, UserId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePassword:
    """Change your own password. All your other sessions end, and a one-time link for it; this session goes on.

    A wrong current password counts as a failed login.
    """

    users: UserRepository
    sessions: SessionRepository
    links: LinkRepository
    failures: LoginFailures
    attempts: Attempts
    new_password: NewPassword
    notices: Notices
    audit: AuditTrail
    transaction: Transaction
    clock: Clock

    async def __call__(self, *, user: UserId, session: SessionId, current: str, new: str) -> None:
        found = await self.users.get(user)
        kept = await self.users.password_hash(user)
        self.new_password.checked(new, email=found.email, field="new_password")
        if not await self.attempts(found.email, current, kept):
            raise await self._failed(user)
        hashed = await self.new_password(new, email=found.email)
        found = await self.users.get(user, lock=True)
        if found.deleted_at is not None or await self.users.password_hash(user) != kept:
            raise await self._failed(user)  # changed or deleted meanwhile
        now = self.clock.now()
        await self.users.save(
            replace(found, has_password=True, updated_at=now, version=found.version + 1), password_hash=hashed
        )
        await self.sessions.end(user, now=now, but=session)
        await self.links.withdraw(user)
        await self.failures.forget(found.email)
        await self.notices.tell(Topic.CREDENTIALS)
        self.audit.note(AuditEvent(workspace=INSTANCE, action=AuditAction.USER_PASSWORD_CHANGED, subject=user))
        await self.transaction.commit()

    async def _failed(self, user: UserId) -> LoginFailed:
        self.audit.note(
            AuditEvent(
                workspace=INSTANCE,
                action=AuditAction.USER_PASSWORD_CHANGED,
                subject=user,
                outcome=LoginFailed.code,
            )
        )
        await self.transaction.commit()
        return LoginFailed("the current password is wrong")
