from dataclasses import dataclass
from typing import final

from application.ports.repositories import WorkspaceRepository
from domain.workspace import Workspace, WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GetWorkspace:
    """Show a workspace, to its members and to its API keys."""

    workspaces: WorkspaceRepository

    async def __call__(self, *, workspace: WorkspaceId) -> Workspace:
        return await self.workspaces.get(workspace)
