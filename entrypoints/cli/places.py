"""From the names that an operator uses to the ids that the core knows."""

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from dishka import AsyncContainer, Scope

from application.ports.repositories import WorkspaceRepository
from domain.workspace import WorkspaceId
from entrypoints.cli.session import CommandFailed

_PAGE: Final = 100


async def workspace_named(container: AsyncContainer, name: str) -> WorkspaceId:
    """Return the id of a workspace. Raises `CommandFailed` that says how one is made."""
    async with container(scope=Scope.REQUEST) as unit:
        workspaces: WorkspaceRepository = await unit.get(WorkspaceRepository)
        found = await workspaces.named(name)
    if found is None:
        option = "" if name == "default" else f" --workspace {name}"
        raise CommandFailed(f"there is no workspace '{name}'; make it with: facepass bootstrap{option}")
    return found.id


async def names_of_workspaces(container: AsyncContainer) -> Mapping[WorkspaceId, str]:
    """Return what each workspace is called."""
    names: dict[WorkspaceId, str] = {}
    after: UUID | None = None
    async with container(scope=Scope.REQUEST) as unit:
        workspaces: WorkspaceRepository = await unit.get(WorkspaceRepository)
        while True:
            page = await workspaces.page(limit=_PAGE, after=after)
            names.update({one.id: one.name for one in page.items})
            if (after := page.next_after) is None:
                return names
