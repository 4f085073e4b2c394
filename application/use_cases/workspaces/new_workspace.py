from dataclasses import dataclass
from typing import final

from application.ports.accounts import MembershipRepository
from application.ports.audit import AuditTrail
from application.ports.clock import Clock
from application.ports.id_generator import IdGenerator
from application.ports.repositories import GalleryRepository, WorkspaceRepository
from application.use_cases.spaces import ServedSpaces
from domain.audit import INSTANCE, AuditAction, AuditEvent
from domain.gallery import DEFAULT_GALLERY, Gallery, GalleryId, Policy
from domain.permission import Role
from domain.user import UserId
from domain.workspace import Membership, Workspace, WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class NewWorkspace:
    """Make a workspace with its default gallery and, where there is one, its owner.

    A part of other use cases: whoever calls it commits.
    """

    spaces: ServedSpaces
    workspaces: WorkspaceRepository
    galleries: GalleryRepository
    memberships: MembershipRepository
    audit: AuditTrail
    ids: IdGenerator
    clock: Clock

    async def __call__(self, *, name: str, owner: UserId | None = None) -> tuple[Workspace, Gallery]:
        """Return both. Raises `WorkspaceNameTaken`, and `UserNotFound` where there is no such owner."""
        now = self.clock.now()
        workspace = Workspace(id=WorkspaceId(self.ids.new()), name=name, created_at=now)
        gallery = Gallery(
            id=GalleryId(self.ids.new()),
            workspace=workspace.id,
            name=DEFAULT_GALLERY,
            space=self.spaces.first.id,
            policy=Policy(),
            created_at=now,
            updated_at=now,
            version=1,
        )
        await self.workspaces.add(workspace)
        await self.galleries.add(gallery)
        for place in (INSTANCE, workspace.id):
            self.audit.note(AuditEvent(workspace=place, action=AuditAction.WORKSPACE_CREATED, subject=workspace.id))
        self.audit.note(
            AuditEvent(
                workspace=workspace.id,
                action=AuditAction.GALLERY_CREATED,
                subject=gallery.id,
                gallery=gallery.id,
            )
        )
        if owner is not None:
            await self.memberships.add(Membership(workspace=workspace.id, user=owner, role=Role.OWNER, created_at=now))
            self.audit.note(
                AuditEvent(
                    workspace=workspace.id,
                    action=AuditAction.MEMBER_ADDED,
                    subject=owner,
                    details={"role": Role.OWNER.value},
                )
            )
        return workspace, gallery
