from dataclasses import dataclass, replace
from typing import final

from application.ports.accounts import LinkPurpose, LinkRepository, LoginFailures, SessionRepository, UserRepository
from application.ports.audit import AuditTrail
from application.ports.clock import Clock
from application.ports.keyed_hash import KeyedHash
from application.ports.notices import Notices, Topic
from application.ports.transaction import Transaction
from application.use_cases.accounts.link_maker import require_maker_administers
from application.use_cases.accounts.new_link import link_digest
from application.use_cases.accounts.new_password import NewPassword
from application.use_cases.audit.origin import current_origin, done_for
from domain.audit import INSTANCE, ActorKind, AuditAction, AuditEvent
from domain.errors import LinkInvalid
from domain.user import User


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ResetPassword:
    """Set a password with a one-time link. All sessions of its user end, and failed logins are forgotten."""

    users: UserRepository
    sessions: SessionRepository
    links: LinkRepository
    failures: LoginFailures
    new_password: NewPassword
    keyed_hash: KeyedHash
    notices: Notices
    audit: AuditTrail
    transaction: Transaction
    clock: Clock

    async def __call__(self, *, token: str, password: str) -> None:
        # Looked at first, and given back: only a good link is worth a hash, and no transaction waits for one.
        user = await self._taken(token)
        await self.transaction.rollback()
        hashed = await self.new_password(password, email=user.email)
        user = await self._taken(token)
        now = self.clock.now()
        await self.users.save(
            replace(user, has_password=True, updated_at=now, version=user.version + 1), password_hash=hashed
        )
        await self.sessions.end(user.id, now=now)
        await self.failures.forget(user.email)
        await self.notices.tell(Topic.CREDENTIALS)
        with done_for(replace(current_origin(), kind=ActorKind.USER, actor=user.id)):
            self.audit.note(
                AuditEvent(
                    workspace=INSTANCE,
                    action=AuditAction.USER_PASSWORD_CHANGED,
                    subject=user.id,
                    details={"by": "link"},
                )
            )
        await self.transaction.commit()

    async def _taken(self, token: str) -> User:
        """Use the link up, and return whose it is.

        The user is locked before it, as by whoever changes them and withdraws it: else the two wait for each other.
        """
        digest, now = link_digest(self.keyed_hash, token), self.clock.now()
        meant = (await self.links.find(digest, now=now)).user
        if meant is None:
            raise LinkInvalid("this link sets nobody's password")
        user = await self.users.get(meant, lock=True)
        link = await self.links.take(digest, purpose=LinkPurpose.PASSWORD, now=now)
        await require_maker_administers(self.users, link)
        if user.deleted_at is not None:
            raise LinkInvalid("this link was used, has expired, or is for somebody else: ask for another")
        return user
