from dataclasses import dataclass
from typing import final

from application.ports.audit import AuditTrail
from application.ports.repositories import GalleryRepository, WorkspaceRepository
from application.ports.transaction import Transaction
from application.use_cases.keys.issue_key import IssueKey
from application.use_cases.workspaces.new_workspace import NewWorkspace
from domain.audit import AuditAction, AuditEvent
from domain.credential import ApiKey
from domain.gallery import DEFAULT_GALLERY, Gallery
from domain.permission import DEFAULT_SCOPES, Scope
from domain.workspace import Workspace, checked_workspace_name

DEFAULT_WORKSPACE = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrapped:
    """What there is now; `secret` is None where no key was made."""

    workspace: Workspace
    gallery: Gallery
    created: bool
    """Whether the workspace was made by this call."""
    key: ApiKey | None
    secret: str | None
    """The API key itself. It is not stored: this is the only time it is seen."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap:
    """Make the first workspace, its default gallery and its first API key.

    Run again it changes nothing, unless another key is asked for.
    """

    new_workspace: NewWorkspace
    issue: IssueKey
    workspaces: WorkspaceRepository
    galleries: GalleryRepository
    audit: AuditTrail
    transaction: Transaction

    async def __call__(
        self,
        *,
        name: str = DEFAULT_WORKSPACE,
        new_key: bool = False,
        key_name: str = "first",
        scopes: frozenset[Scope] = DEFAULT_SCOPES,
    ) -> Bootstrapped:
        workspace = await self.workspaces.named(name)
        created = workspace is None
        if workspace is None:
            workspace, gallery = await self.new_workspace(name=checked_workspace_name(name))
        else:
            gallery = await self.galleries.get(workspace.id, DEFAULT_GALLERY)
        key, secret = None, None
        if created or new_key:
            issued = await self.issue(workspace=workspace.id, name=key_name, scopes=scopes)
            key, secret = issued.key, issued.secret
            self.audit.note(
                AuditEvent(
                    workspace=workspace.id,
                    action=AuditAction.KEY_CREATED,
                    subject=key.id,
                    details={"scopes": sorted(scopes), "galleries": None},
                )
            )
        await self.transaction.commit()
        return Bootstrapped(workspace=workspace, gallery=gallery, created=created, key=key, secret=secret)
