from dataclasses import dataclass
from typing import final

from application.ports.accounts import MembershipRepository, UserRepository
from application.ports.audit import AuditTrail
from application.ports.clock import Clock
from application.ports.notices import Notices, Topic
from application.ports.transaction import Transaction
from application.use_cases.accounts.take_invitation import TakeInvitation
from domain.audit import AuditAction, AuditEvent
from domain.errors import LinkInvalid
from domain.permission import Role
from domain.user import UserId
from domain.workspace import Membership


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptInvitation:
    """Become a member of the workspace that an invitation is to, with the account that is signed in."""

    users: UserRepository
    memberships: MembershipRepository
    take: TakeInvitation
    notices: Notices
    audit: AuditTrail
    transaction: Transaction
    clock: Clock

    async def __call__(self, *, user: UserId, invitation: str) -> Membership:
        found = await self.users.get(user)
        link = await self.take(invitation, email=found.email)
        if link.workspace is None:
            raise LinkInvalid("this invitation is to register, and you have an account")
        membership = Membership(
            workspace=link.workspace, user=user, role=link.role or Role.VIEWER, created_at=self.clock.now()
        )
        await self.memberships.add(membership)
        await self.notices.tell(Topic.CREDENTIALS)
        self.audit.note(
            AuditEvent(
                workspace=link.workspace,
                action=AuditAction.MEMBER_ADDED,
                subject=user,
                details={"role": membership.role.value},
            )
        )
        await self.transaction.commit()
        return membership
