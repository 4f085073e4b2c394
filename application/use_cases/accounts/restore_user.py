from dataclasses import dataclass, replace
from typing import final

from application.ports.accounts import UserRepository
from application.ports.audit import AuditTrail
from application.ports.clock import Clock
from application.ports.notices import Notices, Topic
from application.ports.transaction import Transaction
from domain.audit import INSTANCE, AuditAction, AuditEvent
from domain.user import User, UserId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreUser:
    """Take back that an account was deleted. It signs in as before; sessions that ended stay ended."""

    users: UserRepository
    notices: Notices
    audit: AuditTrail
    transaction: Transaction
    clock: Clock

    async def __call__(self, *, user: UserId) -> User:
        found = await self.users.get(user)
        if found.deleted_at is None:
            return found
        restored = replace(found, deleted_at=None, updated_at=self.clock.now(), version=found.version + 1)
        await self.users.save(restored)
        await self.notices.tell(Topic.CREDENTIALS)
        self.audit.note(AuditEvent(workspace=INSTANCE, action=AuditAction.USER_RESTORED, subject=user))
        await self.transaction.commit()
        return restored
