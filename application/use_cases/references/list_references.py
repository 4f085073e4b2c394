from dataclasses import dataclass
from typing import final
from uuid import UUID

from application.ports.repositories import GalleryRepository, Page, ReferenceRepository
from domain.enrolment import Reference
from domain.gallery import GalleryId
from domain.person import PersonId
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ListReferences:
    """List a gallery's references, or one person's, oldest first."""

    galleries: GalleryRepository
    references: ReferenceRepository

    async def __call__(
        self,
        *,
        workspace: WorkspaceId,
        gallery: GalleryId | str,
        limit: int,
        after: UUID | None,
        person: PersonId | None = None,
    ) -> Page[Reference]:
        found = await self.galleries.get(workspace, gallery)
        return await self.references.page(workspace, found.id, limit=limit, after=after, person=person)
