"""The port through which calls are recognised."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from domain.credential import ApiKey
from domain.permission import Role
from domain.user import SessionId, UserId
from domain.workspace import WorkspaceId


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a signed-in user is at this moment."""

    ends_at: datetime
    """When the session expires."""
    administrator: bool
    roles: Mapping[WorkspaceId, Role]
    """In each workspace that they are a member of."""


class Credentials(Protocol):
    """What is committed about credentials, read without a transaction: each method is one round trip.

    Raises `PortUnavailable` where the database is gone.
    """

    @abstractmethod
    async def api_key(self, digest: bytes) -> ApiKey | None:
        """Return the key whose secret has this keyed hash, revoked or expired as it may be, else None."""

    @abstractmethod
    async def standing(self, user: UserId, session: SessionId) -> Standing | None:
        """Return what a user is; None where they have no such session, it has ended, or the user is deleted."""
