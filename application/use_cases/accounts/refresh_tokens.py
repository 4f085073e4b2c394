from dataclasses import dataclass, replace
from typing import final

from application.ports.accounts import SessionRepository
from application.ports.audit import AuditTrail
from application.ports.clock import Clock
from application.ports.keyed_hash import KeyedHash
from application.ports.notices import Notices, Topic
from application.ports.transaction import Transaction
from application.use_cases.accounts.issue_tokens import IssuedTokens, IssueTokens, refresh_digest
from application.use_cases.audit.origin import current_origin, done_for
from domain.audit import INSTANCE, ActorKind, AuditAction, AuditEvent
from domain.errors import CredentialInvalid
from domain.user import Session


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshTokens:
    """Get a new access token and a new refresh token for a refresh token, which is good once.

    One that comes a second time was stolen, or answered into the void; which of the two nobody can tell. So its session
    ends, with every token that came of it, and its user logs in again.
    """

    sessions: SessionRepository
    issue: IssueTokens
    keyed_hash: KeyedHash
    notices: Notices
    audit: AuditTrail
    transaction: Transaction
    clock: Clock

    async def __call__(self, *, refresh_token: str) -> IssuedTokens:
        now = self.clock.now()
        found = await self.sessions.take(refresh_digest(self.keyed_hash, refresh_token), now=now)
        if found is None:
            raise _refusal()
        session, first = found
        if not first:
            await self._end(session)
            raise _refusal()
        if not session.open(now):
            raise _refusal()
        tokens = await self.issue.renewed(session)
        await self.transaction.commit()
        return tokens

    async def _end(self, session: Session) -> None:
        """End the session of a token that came twice; each such try is noted, also when it had ended before."""
        await self.sessions.end(session.user, now=self.clock.now(), only=session.id)
        await self.notices.tell(Topic.CREDENTIALS)
        with done_for(replace(current_origin(), kind=ActorKind.NOBODY, actor=None)):
            self.audit.note(
                AuditEvent(
                    workspace=INSTANCE,
                    action=AuditAction.SESSION_TOKEN_REUSED,
                    subject=session.user,
                    outcome=CredentialInvalid.code,
                    details={"session": str(session.id)},
                )
            )
        await self.transaction.commit()


def _refusal() -> CredentialInvalid:
    return CredentialInvalid("this refresh token is not good, or no longer: log in again")
