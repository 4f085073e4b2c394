from dataclasses import dataclass, replace
from typing import final

from application.ports.accounts import (
    LinkRepository,
    LoginFailures,
    MembershipRepository,
    SessionRepository,
    UserRepository,
)
from application.ports.audit import AuditTrail
from application.ports.clock import Clock
from application.ports.id_generator import IdGenerator
from application.ports.notices import Notices, Topic
from application.ports.transaction import Transaction
from application.use_cases.accounts.new_password import NewPassword
from domain.audit import INSTANCE, AuditAction, AuditEvent
from domain.errors import UserNotFound
from domain.permission import Role
from domain.user import User, UserId, checked_email
from domain.workspace import Membership, WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MakeAdministrator:
    """Make an instance administrator, who is also an owner of a workspace. For the local operator alone.

    Somebody who has an account becomes one, gets this password, and is signed out everywhere: the way back in for
    whoever lost theirs.
    """

    users: UserRepository
    sessions: SessionRepository
    links: LinkRepository
    failures: LoginFailures
    memberships: MembershipRepository
    new_password: NewPassword
    notices: Notices
    audit: AuditTrail
    transaction: Transaction
    ids: IdGenerator
    clock: Clock

    def checked(self, *, email: str, password: str) -> str:
        """Return the address as it is kept, before anything is done. Raises `InvalidValue` and `PasswordRefused`."""
        address = checked_email(email)
        self.new_password.checked(password, email=address)
        return address

    async def __call__(self, *, email: str, password: str, workspace: WorkspaceId) -> tuple[User, bool]:
        """Return them, and whether the account is new. Raises as `checked` does, and `PortBusy`."""
        address = self.checked(email=email, password=password)
        hashed = await self.new_password(password, email=address)
        try:
            found = await self.users.get(address, lock=True)
        except UserNotFound:
            user, new = await self._added(address, hashed), True
        else:
            user, new = await self._promoted(found, hashed), False
        await self._owning(user, workspace)
        await self.links.withdraw(user.id)
        await self.failures.forget(address)
        await self.notices.tell(Topic.CREDENTIALS)
        await self.transaction.commit()
        return user, new

    async def _added(self, address: str, hashed: str) -> User:
        now = self.clock.now()
        user = User(
            id=UserId(self.ids.new()),
            email=address,
            name="",
            administrator=True,
            has_password=True,
            created_at=now,
            updated_at=now,
            version=1,
        )
        await self.users.add(user, password_hash=hashed)
        self._note(AuditAction.USER_CREATED, user)
        return user

    async def _promoted(self, found: User, hashed: str) -> User:
        now = self.clock.now()
        user = replace(
            found,
            administrator=True,
            has_password=True,
            deleted_at=None,
            updated_at=now,
            version=found.version + 1,
        )
        await self.users.save(user, password_hash=hashed)
        await self.sessions.end(user.id, now=now)
        self._note(AuditAction.USER_UPDATED, user)
        self._note(AuditAction.USER_PASSWORD_CHANGED, user)
        return user

    async def _owning(self, user: User, workspace: WorkspaceId) -> None:
        mine = {one.workspace: one for one in await self.memberships.of_user(user.id)}
        role = mine[workspace].role if workspace in mine else None
        if role is Role.OWNER:
            return
        membership = Membership(workspace=workspace, user=user.id, role=Role.OWNER, created_at=self.clock.now())
        if role is None:
            await self.memberships.add(membership)
        else:
            await self.memberships.save(membership, was=role)
        self.audit.note(
            AuditEvent(
                workspace=workspace,
                action=AuditAction.MEMBER_ADDED if role is None else AuditAction.MEMBER_CHANGED,
                subject=user.id,
                details={"role": Role.OWNER.value},
            )
        )

    def _note(self, action: AuditAction, user: User) -> None:
        self.audit.note(AuditEvent(workspace=INSTANCE, action=action, subject=user.id, details={"administrator": True}))
