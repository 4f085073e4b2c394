from dataclasses import dataclass
from typing import final
from uuid import UUID

from application.ports.repositories import GalleryRepository, Page, PersonRepository
from domain.gallery import GalleryId
from domain.person import Person, checked_external_id
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ListPeople:
    """List a gallery's people, oldest first; with `external_id`, the one who has it."""

    galleries: GalleryRepository
    people: PersonRepository

    async def __call__(
        self,
        *,
        workspace: WorkspaceId,
        gallery: GalleryId | str,
        limit: int,
        after: UUID | None,
        external_id: str | None = None,
    ) -> Page[Person]:
        checked_external_id(external_id)
        found = await self.galleries.get(workspace, gallery)
        return await self.people.page(workspace, found.id, limit=limit, after=after, external_id=external_id)
