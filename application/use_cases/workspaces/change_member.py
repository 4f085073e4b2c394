from dataclasses import dataclass, replace
from typing import final

from application.ports.accounts import InvitationRepository, MembershipRepository, UserRepository
from application.ports.audit import AuditTrail
from application.ports.notices import Notices, Topic
from application.ports.transaction import Transaction
from application.use_cases.workspaces.member import Member, require_may_give
from domain.audit import AuditAction, AuditEvent
from domain.credential import Principal
from domain.errors import MemberNotFound
from domain.permission import Role, may_give
from domain.user import UserId
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeMember:
    """Give a member another role, from their next call on, on every node.

    Nobody gives or takes a role above their own: owners alone make and unmake owners. The last owner stays one.
    With a lower role, invitations that the member made and nobody accepted are good no longer.
    """

    users: UserRepository
    memberships: MembershipRepository
    invitations: InvitationRepository
    audit: AuditTrail
    notices: Notices
    transaction: Transaction

    async def __call__(self, *, workspace: WorkspaceId, giver: Principal, user: UserId, role: Role) -> Member:
        """Return the member. Raises `RoleMissing`, `MemberNotFound`, `LastOwner`."""
        found = (await self.memberships.page(workspace, limit=1, after=None, user=user)).items
        if not found:
            raise MemberNotFound("no such member")
        require_may_give(giver, found[0].role, role)
        changed = replace(found[0], role=role)
        await self.memberships.save(changed, was=found[0].role)
        if not may_give(role, found[0].role):
            await self.invitations.withdraw_of(user, workspace=workspace)
        self.audit.note(
            AuditEvent(
                workspace=workspace,
                action=AuditAction.MEMBER_CHANGED,
                subject=user,
                details={"from": found[0].role.value, "to": role.value},
            )
        )
        await self.notices.tell(Topic.CREDENTIALS)
        await self.transaction.commit()
        return Member(user=await self.users.get(user), membership=changed)
