from dataclasses import dataclass
from typing import final

from application.ports.accounts import LinkPurpose, UserRepository
from application.ports.audit import AuditTrail
from application.ports.transaction import Transaction
from application.use_cases.accounts.new_link import MadeLink, NewLink
from domain.audit import INSTANCE, AuditAction, AuditEvent
from domain.errors import UserNotFound
from domain.permission import Role
from domain.user import UserId, checked_email
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MakeLink:
    """Make a one-time link, to be handed over in whatever way one trusts: no mail is sent.

    For a user it sets their password, once, within 24 hours, and only as long as whoever made it is an administrator;
    an earlier one is good no longer. Without a user it is an invitation, good once within seven days: to register where
    that is by invitation, and to become a member of `workspace` as `role` where these are named. With `email` nobody of
    another address can use it.
    """

    users: UserRepository
    new_link: NewLink
    audit: AuditTrail
    transaction: Transaction

    async def __call__(
        self,
        *,
        made_by: UserId | None = None,
        user: UserId | None = None,
        workspace: WorkspaceId | None = None,
        role: Role | None = None,
        email: str | None = None,
    ) -> MadeLink:
        if user is not None:
            made = await self._for_password(user, made_by)
        else:
            address = None if email is None else checked_email(email)
            made = await self.new_link(
                LinkPurpose.INVITATION, made_by=made_by, workspace=workspace, role=role, email=address
            )
            if workspace is None:
                event = AuditEvent(workspace=INSTANCE, action=AuditAction.USER_LINK_MADE)
            else:
                details = {} if role is None else {"role": role.value}
                event = AuditEvent(workspace=workspace, action=AuditAction.MEMBER_INVITED, details=details)
            self.audit.note(event)
        await self.transaction.commit()
        return made

    async def _for_password(self, user: UserId, made_by: UserId | None) -> MadeLink:
        found = await self.users.get(user, lock=True)
        if found.deleted_at is not None:
            raise UserNotFound("no such user, or deleted: restore them first")
        self.audit.note(AuditEvent(workspace=INSTANCE, action=AuditAction.USER_LINK_MADE, subject=user))
        return await self.new_link(LinkPurpose.PASSWORD, made_by=made_by, user=user)
