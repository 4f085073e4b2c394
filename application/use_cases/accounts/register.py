from dataclasses import dataclass, replace
from typing import final

from application.ports.accounts import Link, MembershipRepository, UserRepository
from application.ports.audit import AuditTrail
from application.ports.clock import Clock
from application.ports.id_generator import IdGenerator
from application.ports.notices import Notices, Topic
from application.ports.transaction import Transaction
from application.use_cases.accounts.new_password import NewPassword
from application.use_cases.accounts.take_invitation import TakeInvitation
from application.use_cases.audit.origin import current_origin, done_for
from application.use_cases.workspaces.new_workspace import NewWorkspace
from domain.audit import INSTANCE, ActorKind, AuditAction, AuditEvent
from domain.errors import EmailTaken, RegistrationClosed
from domain.permission import Role
from domain.user import Registration, User, UserId, checked_email, checked_name
from domain.workspace import Membership


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """Make an account of one's own, where registration is open, or with an invitation where it is by invitation.

    Whoever was invited to a workspace becomes a member of it; everybody else gets a workspace of their own, as its
    owner, with its `default` gallery. That an address is taken is told: where registration is open, nothing else would
    be believed.
    """

    registration: Registration
    users: UserRepository
    memberships: MembershipRepository
    new_password: NewPassword
    new_workspace: NewWorkspace
    take: TakeInvitation
    notices: Notices
    audit: AuditTrail
    transaction: Transaction
    ids: IdGenerator
    clock: Clock

    async def __call__(self, *, email: str, password: str, name: str = "", invitation: str | None = None) -> User:
        address, called = checked_email(email), checked_name(name)
        if self.registration is Registration.CLOSED:
            raise RegistrationClosed("nobody can register here: an administrator makes accounts")
        if invitation is None and self.registration is Registration.INVITATION:
            raise RegistrationClosed("registering here needs an invitation")
        # Looked at first, and given back: only a good invitation is worth a hash, and no transaction waits for one.
        await self._invited(invitation, address)
        await self.transaction.rollback()
        hashed = await self.new_password(password, email=address)
        link = await self._invited(invitation, address)
        now = self.clock.now()
        user = User(
            id=UserId(self.ids.new()),
            email=address,
            name=called,
            administrator=False,
            has_password=True,
            created_at=now,
            updated_at=now,
            version=1,
        )
        try:
            await self.users.add(user, password_hash=hashed)
        except EmailTaken:
            await self.transaction.rollback()  # the invitation is not used up
            raise
        with done_for(replace(current_origin(), kind=ActorKind.USER, actor=user.id)):
            self.audit.note(AuditEvent(workspace=INSTANCE, action=AuditAction.USER_REGISTERED, subject=user.id))
            await self._placed(user, link)
        await self.notices.tell(Topic.CREDENTIALS)
        await self.transaction.commit()
        return user

    async def _invited(self, invitation: str | None, email: str) -> Link | None:
        if invitation is None:
            return None
        return await self.take(invitation, email=email)

    async def _placed(self, user: User, link: Link | None) -> None:
        if link is None or link.workspace is None:
            # Names of workspaces stand in the open, so it says nothing about who this is; its owner can change it.
            await self.new_workspace(name=f"workspace-{user.id.hex[-12:]}", owner=user.id)
            return
        role = link.role or Role.VIEWER
        await self.memberships.add(
            Membership(workspace=link.workspace, user=user.id, role=role, created_at=user.created_at)
        )
        self.audit.note(
            AuditEvent(
                workspace=link.workspace,
                action=AuditAction.MEMBER_ADDED,
                subject=user.id,
                details={"role": role.value},
            )
        )
