from collections.abc import Sequence
from typing import Any, final
from uuid import UUID

from sqlalchemy import Row, exists, select, update
from sqlalchemy.dialects.postgresql import insert

from adapters.persistence.connection import SqlConnection
from adapters.persistence.errors import violation
from adapters.persistence.pages import page, stretch
from adapters.persistence.tables import WORKSPACES
from application.ports.repositories import Page, WorkspaceRepository
from domain.errors import VersionMismatch, WorkspaceNotFound
from domain.workspace import Workspace, WorkspaceId

_NAME_TAKEN = "uq_workspaces_name"


@final
class SqlWorkspaceRepository(WorkspaceRepository):
    """Workspaces in PostgreSQL."""

    def __init__(self, connection: SqlConnection) -> None:
        self._connection = connection

    async def add(self, workspace: Workspace) -> None:
        added = await self._connection.execute(
            insert(WORKSPACES)
            .values(id=workspace.id, name=workspace.name, created_at=workspace.created_at, version=workspace.version)
            # Nothing to do instead of an error, which would end the transaction: the caller may try another name.
            .on_conflict_do_nothing(constraint=_NAME_TAKEN)
        )
        if not added.rowcount:
            raise violation(_NAME_TAKEN)

    async def named(self, name: str) -> Workspace | None:
        found = await self._connection.execute(select(WORKSPACES).where(WORKSPACES.c.name == name))
        row = found.one_or_none()
        return None if row is None else to_workspace(row)

    async def get(self, workspace: WorkspaceId) -> Workspace:
        row = (await self._connection.execute(select(WORKSPACES).where(WORKSPACES.c.id == workspace))).one_or_none()
        if row is None:
            raise WorkspaceNotFound("no such workspace")
        return to_workspace(row)

    async def page(
        self, *, limit: int, after: UUID | None, among: Sequence[WorkspaceId] | None = None
    ) -> Page[Workspace]:
        listed = select(WORKSPACES)
        if among is not None:
            listed = listed.where(WORKSPACES.c.id.in_(among))
        found = await self._connection.execute(stretch(listed, WORKSPACES.c.id, limit=limit, after=after))
        return page(found.all(), to_workspace, limit=limit)

    async def save(self, workspace: Workspace) -> None:
        this = WORKSPACES.c.id == workspace.id
        saved = await self._connection.execute(
            update(WORKSPACES)
            .where(this, WORKSPACES.c.version == workspace.version - 1)
            .values(name=workspace.name, version=workspace.version)
        )
        if not saved.rowcount:
            if (await self._connection.execute(select(exists().where(this)))).scalar_one():
                raise VersionMismatch("the workspace was changed meanwhile")
            raise WorkspaceNotFound("no such workspace")


def to_workspace(row: Row[Any]) -> Workspace:
    """Read a row of `workspaces`."""
    return Workspace(id=WorkspaceId(row.id), name=row.name, created_at=row.created_at, version=row.version)
