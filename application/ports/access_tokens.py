"""The port to access tokens: short-lived, signed, and checked without asking anybody."""

from abc import abstractmethod
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from domain.user import SessionId, UserId


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessClaims:
    """What a token says. What its user may do is never in it: that is looked up."""

    user: UserId
    session: SessionId
    issued_at: datetime
    expires_at: datetime


class AccessTokens(Protocol):
    """Signs and reads tokens, with keys that rotate."""

    @abstractmethod
    async def signed(self, claims: AccessClaims) -> str:
        """Return a token, signed with the key in use, whose id stands in it."""

    @abstractmethod
    async def read(self, token: str, *, now: datetime) -> AccessClaims:
        """Return what a good one says.

        Raises `CredentialInvalid` for one that is expired, forged, changed, signed by another algorithm or by a key
        that is retired or unknown, and `PortUnavailable`.
        """

    @abstractmethod
    async def rotate(self, *, now: datetime) -> None:
        """Sign with a new key from now on; tokens of the one before are good until they expire."""
