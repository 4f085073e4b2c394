import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, final

from application.ports.access_tokens import AccessClaims, AccessTokens, SigningKeys
from application.ports.accounts import SessionRepository
from application.ports.clock import Clock
from application.ports.id_generator import IdGenerator
from application.ports.keyed_hash import KeyedHash
from application.use_cases.accounts.new_signing_key import ACCESS_LIFETIME, NewSigningKey
from domain.user import Session, SessionId, UserId

REFRESH_LIFETIME: Final = timedelta(days=30)
"""How long a session is open without being used; each use begins it again."""
SIGNING_KEY_LIFETIME: Final = timedelta(days=30)
"""How long a key signs before the next login or refresh begins another."""

REFRESH_BEGINS: Final = "fr_"
REFRESH_PURPOSE: Final = "refresh-token"
AGENT_LENGTH: Final = 200
_SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedTokens:
    """What a client signs in with from now on. Neither token is kept: the refresh token as a keyed hash alone."""

    session: SessionId
    access_token: str
    lifetime: timedelta
    """Of the access token."""
    refresh_token: str
    refresh_expires_at: datetime


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class IssueTokens:
    """Make the tokens of a session. A part of other use cases: whoever calls it commits."""

    sessions: SessionRepository
    signing_keys: SigningKeys
    new_signing_key: NewSigningKey
    tokens: AccessTokens
    keyed_hash: KeyedHash
    ids: IdGenerator
    clock: Clock

    async def begun(self, user: UserId, *, agent: str) -> IssuedTokens:
        """Begin a session; `agent` is what the client calls itself."""
        now = self.clock.now()
        session = Session(
            id=SessionId(self.ids.new()),
            user=user,
            created_at=now,
            last_used_at=now,
            expires_at=now + REFRESH_LIFETIME,
            agent="".join(filter(str.isprintable, agent))[:AGENT_LENGTH],
        )
        refresh_token = new_refresh_token()
        await self.sessions.add(session, refresh_digest=refresh_digest(self.keyed_hash, refresh_token))
        return await self._issued(session, refresh_token)

    async def renewed(self, session: Session) -> IssuedTokens:
        """Go on with a session, whose refresh token was just used."""
        now = self.clock.now()
        renewed = replace(session, last_used_at=now, expires_at=now + REFRESH_LIFETIME)
        refresh_token = new_refresh_token()
        await self.sessions.renew(renewed, refresh_digest=refresh_digest(self.keyed_hash, refresh_token))
        return await self._issued(renewed, refresh_token)

    async def _issued(self, session: Session, refresh_token: str) -> IssuedTokens:
        now = session.last_used_at
        key = await self.signing_keys.in_use()
        if key is None or now - key.created_at > SIGNING_KEY_LIFETIME:
            key = await self.new_signing_key()
        claims = AccessClaims(user=session.user, session=session.id, issued_at=now, expires_at=now + ACCESS_LIFETIME)
        return IssuedTokens(
            session=session.id,
            access_token=self.tokens.signed(claims, key=key.id),
            lifetime=ACCESS_LIFETIME,
            refresh_token=refresh_token,
            refresh_expires_at=session.expires_at,
        )


def new_refresh_token() -> str:
    """Return one: 256 random bits behind a beginning that scanners for leaked secrets know."""
    return REFRESH_BEGINS + secrets.token_urlsafe(_SECRET_BYTES)


def refresh_digest(keyed_hash: KeyedHash, token: str) -> bytes:
    """Return what a refresh token is kept as."""
    return keyed_hash.digest(REFRESH_PURPOSE, token.encode())
