"""A tenant: whatever belongs to one never meets another."""

from dataclasses import dataclass
from datetime import datetime
from typing import NewType
from uuid import UUID

WorkspaceId = NewType("WorkspaceId", UUID)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """Its galleries, API keys and, later, members."""

    id: WorkspaceId
    name: str
    created_at: datetime
