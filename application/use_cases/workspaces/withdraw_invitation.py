from dataclasses import dataclass
from typing import final

from application.ports.accounts import InvitationRepository
from application.ports.audit import AuditTrail
from application.ports.clock import Clock
from application.ports.transaction import Transaction
from application.use_cases.workspaces.member import require_may_give
from domain.audit import AuditAction, AuditEvent
from domain.credential import Principal
from domain.permission import Role
from domain.user import LinkId
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawInvitation:
    """Take an invitation back: its link is good no longer. Nobody takes back one to a role above their own."""

    invitations: InvitationRepository
    audit: AuditTrail
    transaction: Transaction
    clock: Clock

    async def __call__(self, *, workspace: WorkspaceId, remover: Principal, invitation: LinkId) -> None:
        """Withdraw one. Raises `InvitationNotFound`, `RoleMissing`."""
        link = await self.invitations.withdraw(workspace, invitation, now=self.clock.now())
        role = link.role or Role.VIEWER
        require_may_give(remover, role)
        self.audit.note(
            AuditEvent(
                workspace=workspace,
                action=AuditAction.INVITATION_WITHDRAWN,
                subject=invitation,
                details={"role": role.value},
            )
        )
        await self.transaction.commit()
