"""Who may do what: API keys and their scopes."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NewType
from uuid import UUID

from domain.errors import ScopeMissing
from domain.workspace import WorkspaceId

ApiKeyId = NewType("ApiKeyId", UUID)


class Scope(StrEnum):
    """What a key may be used for."""

    ENROL = "enrol"
    VERIFY = "verify"
    SEARCH = "search"
    LIVENESS = "liveness"
    READ = "read"
    MANAGE = "manage"
    EMBED = "embed"
    """Off by default, so that an application that needs no embeddings cannot leak them.

    The index holds vectors that are turned by a secret rotation. As many embeddings of enrolled photographs as there
    are dimensions give it away, and fewer most of it. Whoever has the model can make them without this scope.
    """


DEFAULT_SCOPES = frozenset(Scope) - {Scope.EMBED}


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """What is kept of a key; the key itself is shown once and never stored."""

    id: ApiKeyId
    workspace: WorkspaceId
    name: str
    prefix: str
    """The key's first characters, to recognise it in a list."""
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    def usable(self, now: datetime) -> bool:
        """Tell whether it is neither revoked nor expired at `now`."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who a call comes from, once its credential was found good."""

    workspace: WorkspaceId
    scopes: frozenset[Scope]
    key: ApiKeyId | None
    """None for the local operator on the command line."""

    def require(self, scope: Scope) -> None:
        """Raise `ScopeMissing` where the credential does not hold `scope`."""
        if scope not in self.scopes:
            raise ScopeMissing(f"this credential may not do that: it lacks the scope '{scope.value}'")
