from dataclasses import dataclass
from typing import final

from application.ports.repositories import GalleryRepository, PersonRepository
from domain.gallery import GalleryId
from domain.person import Person, PersonId
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GetPerson:
    """Show a person by id. Somebody merged into another person is shown with `merged_into`."""

    galleries: GalleryRepository
    people: PersonRepository

    async def __call__(self, *, workspace: WorkspaceId, gallery: GalleryId | str, person: PersonId) -> Person:
        found = await self.galleries.get(workspace, gallery)
        return await self.people.get(workspace, found.id, person, lock=False)
