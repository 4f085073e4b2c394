from dataclasses import dataclass, replace
from typing import final

from application.ports.accounts import InvitationRepository, LinkRepository, SessionRepository, UserRepository
from application.ports.audit import AuditTrail
from application.ports.clock import Clock
from application.ports.notices import Notices, Topic
from application.ports.transaction import Transaction
from domain.audit import INSTANCE, AuditAction, AuditEvent
from domain.errors import UserNotFound
from domain.user import UserId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteUser:
    """Delete an account: it cannot sign in, and its sessions and one-time links end at once, on every node.

    So do the links that it made.

    It is kept and can be restored, and its address stays taken. The last administrator cannot be deleted, nor
    the last owner of a workspace that has other members.
    """

    users: UserRepository
    sessions: SessionRepository
    links: LinkRepository
    invitations: InvitationRepository
    notices: Notices
    audit: AuditTrail
    transaction: Transaction
    clock: Clock

    async def __call__(self, *, user: UserId) -> None:
        found = await self.users.get(user)
        if found.deleted_at is not None:
            raise UserNotFound("no such user, or deleted already")
        now = self.clock.now()
        await self.users.save(replace(found, deleted_at=now, updated_at=now, version=found.version + 1))
        await self.sessions.end(user, now=now)
        await self.links.withdraw(user)
        await self.links.withdraw_of(user)
        await self.invitations.withdraw_of(user)
        await self.notices.tell(Topic.CREDENTIALS)
        self.audit.note(AuditEvent(workspace=INSTANCE, action=AuditAction.USER_DELETED, subject=user))
        await self.transaction.commit()
