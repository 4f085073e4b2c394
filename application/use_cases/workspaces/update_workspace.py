from dataclasses import dataclass, replace
from typing import final

from application.ports.audit import AuditTrail
from application.ports.repositories import WorkspaceRepository
from application.ports.transaction import Transaction
from domain.audit import AuditAction, AuditEvent
from domain.errors import VersionMismatch
from domain.workspace import Workspace, WorkspaceId, checked_workspace_name


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateWorkspace:
    """Give a workspace another name. With `If-Match` only where it is at the version that was seen."""

    workspaces: WorkspaceRepository
    audit: AuditTrail
    transaction: Transaction

    async def __call__(self, *, workspace: WorkspaceId, name: str | None, version: int | None = None) -> Workspace:
        found = await self.workspaces.get(workspace)
        if version is not None and version != found.version:
            raise VersionMismatch(f"the workspace is at version {found.version}, not {version}: read it again")
        changed = replace(
            found,
            name=found.name if name is None else checked_workspace_name(name),
            version=found.version + 1,
        )
        await self.workspaces.save(changed)
        self.audit.note(AuditEvent(workspace=workspace, action=AuditAction.WORKSPACE_UPDATED, subject=workspace))
        await self.transaction.commit()
        return changed
