from dataclasses import dataclass
from typing import final

from application.ports.accounts import InvitationRepository, MembershipRepository
from application.ports.audit import AuditTrail
from application.ports.notices import Notices, Topic
from application.ports.transaction import Transaction
from application.use_cases.workspaces.member import require_may_give
from domain.audit import AuditAction, AuditEvent
from domain.credential import Principal
from domain.errors import MemberNotFound
from domain.user import UserId
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveMember:
    """Take a member out of a workspace: their next call there is refused, on every node. The last owner stays.

    Nobody removes somebody above themselves. What they invited to and nobody accepted is good no longer; API keys
    that they made stay as they are.
    """

    memberships: MembershipRepository
    invitations: InvitationRepository
    audit: AuditTrail
    notices: Notices
    transaction: Transaction

    async def __call__(self, *, workspace: WorkspaceId, remover: Principal, user: UserId) -> None:
        """Remove one. Raises `RoleMissing`, `MemberNotFound`, `LastOwner`."""
        found = (await self.memberships.page(workspace, limit=1, after=None, user=user)).items
        if not found:
            raise MemberNotFound("no such member")
        if user != remover.user:
            require_may_give(remover, found[0].role)
        await self.memberships.remove(workspace, user, was=found[0].role)
        await self.invitations.withdraw_of(user, workspace=workspace)
        self.audit.note(
            AuditEvent(
                workspace=workspace,
                action=AuditAction.MEMBER_REMOVED,
                subject=user,
                details={"role": found[0].role.value},
            )
        )
        await self.notices.tell(Topic.CREDENTIALS)
        await self.transaction.commit()
