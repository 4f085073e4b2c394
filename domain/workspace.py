"""A tenant: whatever belongs to one never meets another."""

from dataclasses import dataclass
from datetime import datetime
from typing import NewType
from uuid import UUID

from domain.errors import InvalidValue
from domain.permission import Role
from domain.user import UserId

WorkspaceId = NewType("WorkspaceId", UUID)

WORKSPACE_NAME_LENGTH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """Its members, galleries and API keys."""

    id: WorkspaceId
    name: str
    """Unique in the installation."""
    created_at: datetime
    version: int = 1
    """Counts changes from 1; the entity tag."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """A user in a workspace."""

    workspace: WorkspaceId
    user: UserId
    role: Role
    created_at: datetime


def checked_workspace_name(name: str) -> str:
    """Return it trimmed. Raises `InvalidValue` unless it has 1 to 100 printable characters."""
    plain = name.strip()
    if not 1 <= len(plain) <= WORKSPACE_NAME_LENGTH or not plain.isprintable():
        raise InvalidValue(f"a workspace's name has 1 to {WORKSPACE_NAME_LENGTH} printable characters", field="name")
    return plain
