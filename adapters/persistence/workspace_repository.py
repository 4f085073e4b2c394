from typing import Any, final

from sqlalchemy import Row, insert, select

from adapters.persistence.connection import SqlConnection
from adapters.persistence.tables import WORKSPACES
from application.ports.repositories import WorkspaceRepository
from domain.workspace import Workspace, WorkspaceId


@final
class SqlWorkspaceRepository(WorkspaceRepository):
    """Workspaces in PostgreSQL."""

    def __init__(self, connection: SqlConnection) -> None:
        self._connection = connection

    async def add(self, workspace: Workspace) -> None:
        await self._connection.execute(
            insert(WORKSPACES).values(id=workspace.id, name=workspace.name, created_at=workspace.created_at)
        )

    async def named(self, name: str) -> Workspace | None:
        found = await self._connection.execute(select(WORKSPACES).where(WORKSPACES.c.name == name))
        row = found.one_or_none()
        return None if row is None else to_workspace(row)


def to_workspace(row: Row[Any]) -> Workspace:
    """Read a row of `workspaces`."""
    return Workspace(id=WorkspaceId(row.id), name=row.name, created_at=row.created_at, version=row.version)
