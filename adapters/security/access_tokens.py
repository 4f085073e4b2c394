import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, final
from uuid import UUID, uuid4

import jwt

from application.ports.access_tokens import AccessClaims, AccessTokens, SigningKeyId, SigningKeyRecord
from application.ports.keyed_hash import KeyedHash
from domain.errors import CredentialInvalid
from domain.user import SessionId, UserId

ALGORITHM: Final = "HS256"
TYPE: Final = "at+jwt"
"""RFC 9068, 2.1: no other kind of token can be taken for an access token."""
ISSUER: Final = "facepass"
AUDIENCE: Final = "facepass"
PURPOSE: Final = "access-token"
CLAIMS: Final = ("iss", "aud", "sub", "sid", "iat", "exp", "jti")

LEEWAY: Final = timedelta(seconds=5)
"""What two nodes' clocks may differ by."""
LONGEST_TOKEN: Final = 1024
"""Characters; ours have some 400. Nothing of a longer one is decoded."""

REMEMBERED_SECONDS: Final = 10.0
"""How long the keys' ids are taken on trust: a key that is retired early is refused everywhere within this time."""
_BETWEEN_READS: Final = 1.0
"""Seconds at least between two looks at the record for a key that is not known."""


@dataclass(frozen=True, slots=True)
class _Known:
    at: float
    retires: Mapping[SigningKeyId, datetime | None]


@final
class JwtAccessTokens(AccessTokens):
    """JSON Web Tokens (RFC 7519) by HMAC-SHA-256, the only algorithm that is taken (RFC 8725, 3.1).

    A key is the keyed hash of its id, so that the database has none of it: whoever has all of the database can sign
    nothing. The signature is checked before the record is asked whether the key is still good: what is forged costs no
    query, and so nobody can keep a good token of a new key waiting by sending many of unknown ones.
    """

    def __init__(self, keyed_hash: KeyedHash, record: SigningKeyRecord) -> None:
        self._keyed_hash = keyed_hash
        self._record = record
        self._known = _Known(float("-inf"), {})
        self._reading = asyncio.Lock()

    def signed(self, claims: AccessClaims, *, key: SigningKeyId) -> str:
        return jwt.encode(
            {
                "iss": ISSUER,
                "aud": AUDIENCE,
                "sub": str(claims.user),
                "sid": str(claims.session),
                "iat": int(claims.issued_at.timestamp()),
                "exp": int(claims.expires_at.timestamp()),
                "jti": str(uuid4()),
            },
            self._secret(key),
            algorithm=ALGORITHM,
            headers={"kid": str(key), "typ": TYPE},
        )

    async def read(self, token: str, *, now: datetime) -> AccessClaims:
        key, claims = self._in_time(token, now)
        if not await self._good(key, now):
            raise _refusal()
        return claims

    def is_ours(self, token: str, *, now: datetime) -> bool:
        try:
            self._in_time(token, now)
        except CredentialInvalid:
            return False
        return True

    def _in_time(self, token: str, now: datetime) -> tuple[SigningKeyId, AccessClaims]:
        """Return the key and the claims of a token that holds now. Raises `CredentialInvalid`."""
        try:
            key, claims = self._verified(token)
        except (jwt.InvalidTokenError, ValueError, TypeError, OverflowError) as error:
            raise _refusal() from error
        if not claims.issued_at - LEEWAY <= now < claims.expires_at + LEEWAY:
            raise _refusal()
        return key, claims

    def _verified(self, token: str) -> tuple[SigningKeyId, AccessClaims]:
        """Return the key and the claims of a token whose signature is right. Raises what is wrong with it."""
        if len(token) > LONGEST_TOKEN:
            raise jwt.InvalidTokenError
        header = jwt.get_unverified_header(token)
        if header.get("typ") != TYPE or header.get("alg") != ALGORITHM:
            raise jwt.InvalidTokenError
        key = SigningKeyId(UUID(str(header.get("kid"))))
        said: dict[str, Any] = jwt.decode(
            token,
            self._secret(key),
            algorithms=[ALGORITHM],
            audience=AUDIENCE,
            issuer=ISSUER,
            # Times are compared by `read`, with the clock that it is given.
            options={"require": list(CLAIMS), "verify_exp": False, "verify_iat": False},
        )
        return key, AccessClaims(
            user=UserId(UUID(said["sub"])),
            session=SessionId(UUID(said["sid"])),
            issued_at=datetime.fromtimestamp(int(said["iat"]), UTC),
            expires_at=datetime.fromtimestamp(int(said["exp"]), UTC),
        )

    def _secret(self, key: SigningKeyId) -> bytes:
        return self._keyed_hash.digest(PURPOSE, key.bytes)

    async def _good(self, key: SigningKeyId, now: datetime) -> bool:
        if key not in self._known.retires or time.monotonic() - self._known.at > REMEMBERED_SECONDS:
            await self._read_again(self._known)
        if key not in self._known.retires:
            return False
        retires = self._known.retires[key]
        return retires is None or now < retires

    async def _read_again(self, seen: _Known) -> None:
        """Look at the record, unless somebody did while this call waited."""
        async with self._reading:
            if self._known is not seen:
                return
            wait = self._known.at + _BETWEEN_READS - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            at = time.monotonic()
            self._known = _Known(at, {key.id: key.retires_at for key in await self._record.all()})


def _refusal() -> CredentialInvalid:
    return CredentialInvalid("this access token is not good, or no longer: log in again, or refresh it")
