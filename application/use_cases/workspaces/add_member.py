from dataclasses import dataclass
from typing import final

from application.ports.accounts import MembershipRepository, UserRepository
from application.ports.audit import AuditTrail
from application.ports.clock import Clock
from application.ports.notices import Notices, Topic
from application.ports.transaction import Transaction
from application.use_cases.workspaces.member import Member, require_may_give
from domain.audit import AuditAction, AuditEvent
from domain.credential import Principal
from domain.errors import UserNotFound
from domain.permission import Role
from domain.user import UserId
from domain.workspace import Membership, WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AddMember:
    """Make a user a member of a workspace, by id.

    Nobody gives a role above their own: owners alone make owners. Whoever is known by
    an address alone is invited instead, whether or not there is such an account.
    """

    users: UserRepository
    memberships: MembershipRepository
    audit: AuditTrail
    notices: Notices
    transaction: Transaction
    clock: Clock

    async def __call__(self, *, workspace: WorkspaceId, giver: Principal, user: UserId, role: Role) -> Member:
        """Return the new member. Raises `RoleMissing`, `UserNotFound`, `MemberExists`."""
        require_may_give(giver, role)
        found = await self.users.get(user)
        if found.deleted_at is not None:
            raise UserNotFound("no such user")
        membership = Membership(workspace=workspace, user=found.id, role=role, created_at=self.clock.now())
        await self.memberships.add(membership)
        self.audit.note(
            AuditEvent(
                workspace=workspace, action=AuditAction.MEMBER_ADDED, subject=found.id, details={"role": role.value}
            )
        )
        await self.notices.tell(Topic.CREDENTIALS)
        await self.transaction.commit()
        return Member(user=found, membership=membership)
