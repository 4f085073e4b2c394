from dataclasses import dataclass
from datetime import datetime
from typing import final

from application.ports.repositories import GalleryRepository, PersonRepository
from application.ports.retentions import Retentions
from domain.gallery import GalleryId
from domain.person import Person, PersonId
from domain.workspace import WorkspaceId


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonState:
    """A person, and when they are due to be erased; None for never."""

    person: Person
    erase_after: datetime | None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GetPerson:
    """Show a person by id, and when they will be erased by themselves.

    Somebody merged into another person is shown with `merged_into`.
    """

    galleries: GalleryRepository
    people: PersonRepository
    retentions: Retentions

    async def __call__(self, *, workspace: WorkspaceId, gallery: GalleryId | str, person: PersonId) -> PersonState:
        place = await self.galleries.get(workspace, gallery)
        found = await self.people.get(workspace, place.id, person, lock=False)
        return PersonState(person=found, erase_after=await self.retentions.erase_after(workspace, place.id, found.id))
