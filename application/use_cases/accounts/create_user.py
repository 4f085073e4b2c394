from dataclasses import dataclass
from typing import final

from application.ports.accounts import LinkPurpose, UserRepository
from application.ports.audit import AuditTrail
from application.ports.clock import Clock
from application.ports.id_generator import IdGenerator
from application.ports.transaction import Transaction
from application.use_cases.accounts.new_link import MadeLink, NewLink
from application.use_cases.accounts.new_password import NewPassword
from domain.audit import INSTANCE, AuditAction, AuditEvent
from domain.user import User, UserId, checked_email, checked_name


@dataclass(frozen=True, slots=True, kw_only=True)
class NewUser:
    """Who is to be made."""

    email: str
    name: str = ""
    administrator: bool = False
    password: str | None = None
    """None: they set it with a one-time link."""
    password_link: bool = False
    """Make one at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedUser:
    """Who was made; `link` is None where none was asked for."""

    user: User
    link: MadeLink | None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CreateUser:
    """Make an account, without a workspace.

    Without a password its owner sets one with a one-time link: with `password_link` the answer has it. The email
    address is unique in the installation, without regard to case, deleted users' too.
    """

    users: UserRepository
    new_password: NewPassword
    new_link: NewLink
    audit: AuditTrail
    transaction: Transaction
    ids: IdGenerator
    clock: Clock

    async def __call__(self, new: NewUser, *, made_by: UserId | None = None) -> CreatedUser:
        email, name = checked_email(new.email), checked_name(new.name)
        hashed = None if new.password is None else await self.new_password(new.password, email=email)
        now = self.clock.now()
        user = User(
            id=UserId(self.ids.new()),
            email=email,
            name=name,
            administrator=new.administrator,
            has_password=hashed is not None,
            created_at=now,
            updated_at=now,
            version=1,
        )
        await self.users.add(user, password_hash=hashed)
        self.audit.note(
            AuditEvent(
                workspace=INSTANCE,
                action=AuditAction.USER_CREATED,
                subject=user.id,
                details={"administrator": user.administrator},
            )
        )
        link = None
        if new.password_link:
            link = await self.new_link(LinkPurpose.PASSWORD, made_by=made_by, user=user.id)
            self.audit.note(AuditEvent(workspace=INSTANCE, action=AuditAction.USER_LINK_MADE, subject=user.id))
        await self.transaction.commit()
        return CreatedUser(user=user, link=link)
