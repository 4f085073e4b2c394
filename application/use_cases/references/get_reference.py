from dataclasses import dataclass
from typing import final

from application.ports.repositories import GalleryRepository, ReferenceRepository
from domain.enrolment import Reference, ReferenceId
from domain.errors import ReferenceNotFound
from domain.gallery import GalleryId
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GetReference:
    """Show one reference: whose it is, its quality, and whether the index has it. Never its template."""

    galleries: GalleryRepository
    references: ReferenceRepository

    async def __call__(self, *, workspace: WorkspaceId, gallery: GalleryId | str, reference: ReferenceId) -> Reference:
        place = await self.galleries.get(workspace, gallery)
        page = await self.references.page(workspace, place.id, limit=1, after=None, reference=reference)
        if not page.items:
            raise ReferenceNotFound(f"no reference {reference} in this gallery")
        return page.items[0]
