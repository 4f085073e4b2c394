from dataclasses import dataclass
from typing import final

from application.ports.audit import AuditTrail
from application.ports.repositories import GalleryRepository
from application.ports.transaction import Transaction
from domain.audit import AuditAction, AuditEvent
from domain.errors import GalleryKept
from domain.gallery import DEFAULT_GALLERY, GalleryId
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteGallery:
    """Delete an empty gallery. The default one, and one with people in it, are kept: delete its people first."""

    galleries: GalleryRepository
    audit: AuditTrail
    transaction: Transaction

    async def __call__(self, *, workspace: WorkspaceId, gallery: GalleryId | str) -> None:
        found = await self.galleries.get(workspace, gallery)
        if found.name == DEFAULT_GALLERY:
            raise GalleryKept("the default gallery cannot be deleted: calls without a gallery mean it")
        await self.galleries.remove(workspace, found.id)
        self.audit.note(
            AuditEvent(workspace=workspace, action=AuditAction.GALLERY_DELETED, subject=found.id, gallery=found.id)
        )
        await self.transaction.commit()
