"""The ports to access tokens: short-lived, signed, and checked without asking anybody but for the keys' ids."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NewType, Protocol
from uuid import UUID

from domain.user import SessionId, UserId

SigningKeyId = NewType("SigningKeyId", UUID)


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
    def signed(self, claims: AccessClaims, *, key: SigningKeyId) -> str:
        """Return a token, signed with this key, whose id stands in it."""

    @abstractmethod
    async def read(self, token: str, *, now: datetime) -> AccessClaims:
        """Return what a good one says.

        Raises `CredentialInvalid` for one that is expired, forged, changed, signed by another algorithm or by a key
        that is retired or unknown, and `PortUnavailable`. A key that was begun in another process is known at once.
        """

    @abstractmethod
    def is_ours(self, token: str, *, now: datetime) -> bool:
        """Tell whether it was signed here and has not expired, without asking anybody whether its key is still good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """What is kept of a signing key: nothing secret."""

    id: SigningKeyId
    created_at: datetime
    retires_at: datetime | None = None
    """When tokens that it signed are not taken any more; None for the one in use."""


class SigningKeys(Protocol):
    """The ids of signing keys, in the request's transaction. Each method raises `PortUnavailable`."""

    @abstractmethod
    async def in_use(self) -> SigningKey | None:
        """Return the newest of those that do not retire, None where there is none yet."""

    @abstractmethod
    async def begin(self, key: SigningKey, *, others_retire_at: datetime) -> None:
        """Use this one from the commit on; those in use until then retire, none later than it would have."""

    @abstractmethod
    async def purge(self, now: datetime) -> int:
        """Remove those that have retired, and return how many."""


class SigningKeyRecord(Protocol):
    """What is committed about signing keys, read without a transaction."""

    @abstractmethod
    async def all(self) -> Sequence[SigningKey]:
        """Return every key that is kept, retired ones too. Raises `PortUnavailable`."""
