from contextlib import suppress
from dataclasses import dataclass, replace
from typing import final

from application.ports.accounts import LoginFailures, LoginRecord, UserRepository
from application.ports.audit import AuditTrail
from application.ports.clock import Clock
from application.ports.errors import PortBusy
from application.ports.id_generator import IdGenerator
from application.ports.passwords import PasswordHasher
from application.ports.transaction import Transaction
from application.use_cases.accounts.attempts import Attempts
from application.use_cases.accounts.issue_tokens import IssuedTokens, IssueTokens
from application.use_cases.audit.origin import current_origin, done_for
from domain.audit import INSTANCE, ActorKind, AuditAction, AuditEvent
from domain.errors import LoginFailed, UserNotFound
from domain.user import User, UserId, checked_email, normalised_password


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LogIn:
    """Sign in with email address and password.

    An unknown address, a wrong password, a deleted account and one without a password are answered alike, after the
    same work. After five failures in a row each further one locks the address for longer, two seconds up to a quarter
    of an hour, whether or not there is such an account; a success forgets them.
    """

    users: UserRepository
    failures: LoginFailures
    logins: LoginRecord
    hasher: PasswordHasher
    attempts: Attempts
    issue: IssueTokens
    audit: AuditTrail
    transaction: Transaction
    ids: IdGenerator
    clock: Clock

    async def __call__(self, *, email: str, password: str, agent: str) -> IssuedTokens:
        address = checked_email(email)
        user, password_hash = await self._claimed(address)
        right = await self.attempts(address, password, password_hash)
        if user is None or not right:
            raise await self._failed(user)
        stronger = await self._stronger(password, password_hash)
        # Between the look and the hash somebody may have changed the password or deleted the account,
        # or another login have hashed the same password anew.
        user, kept = await self._locked(user.id)
        if kept != password_hash:
            await self.transaction.rollback()  # no transaction waits for a hash
            if await self.hasher.verified(normalised_password(password), kept):
                password_hash, stronger = kept, None
            user, kept = await self._locked(user.id)
        if user.deleted_at is not None or kept != password_hash:
            raise await self._failed(user)
        await self.failures.forget(address)
        await self.logins.logged_in(user.id, at=self.clock.now(), password_hash=stronger)
        tokens = await self.issue.begun(user.id, agent=agent)
        with done_for(replace(current_origin(), kind=ActorKind.USER, actor=user.id)):
            self.audit.note(
                AuditEvent(
                    workspace=INSTANCE,
                    action=AuditAction.USER_LOGGED_IN,
                    subject=user.id,
                    details={"session": str(tokens.session)},
                )
            )
        await self.transaction.commit()
        return tokens

    async def _claimed(self, address: str) -> tuple[User | None, str | None]:
        """Return whose address it is and what their password was hashed to, by as many queries for nobody."""
        user = None
        with suppress(UserNotFound):
            user = await self.users.get(address)
        password_hash = None
        with suppress(UserNotFound):
            password_hash = await self.users.password_hash(UserId(self.ids.new()) if user is None else user.id)
        if user is not None and user.deleted_at is not None:
            return user, None
        return user, password_hash

    async def _locked(self, user: UserId) -> tuple[User, str | None]:
        """Return the user, who stays as they are until the transaction ends, and what their password is hashed to."""
        return await self.users.get(user, lock=True), await self.users.password_hash(user)

    async def _stronger(self, password: str, password_hash: str | None) -> str | None:
        """Return a new hash where the kept one is outdated and there is room to make one; else the next login does."""
        if password_hash is not None and self.hasher.outdated(password_hash):
            with suppress(PortBusy):
                return await self.hasher.hashed(normalised_password(password))
        return None

    async def _failed(self, user: User | None) -> LoginFailed:
        self.audit.note(
            AuditEvent(
                workspace=INSTANCE,
                action=AuditAction.USER_LOGIN_FAILED,
                subject=None if user is None else user.id,
                outcome=LoginFailed.code,
            )
        )
        await self.transaction.commit()
        return LoginFailed("the email address or the password is wrong, or this account cannot sign in")
