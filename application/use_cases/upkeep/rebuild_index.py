from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from application.ports.cipher import Cipher
from application.ports.record import Record
from application.ports.vector_index import Entry, VectorIndex
from application.use_cases.matching.templates import opened
from domain.enrolment import ReferenceId
from domain.gallery import GalleryId
from domain.workspace import WorkspaceId

_BATCH = 1000

Counted = Callable[[int], None]
"""Called with the number of references done so far."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildIndex:
    """Write a gallery's index anew from the record. Decisions are the same before and after.

    Searches meanwhile see what is there already; enrolments and deletions meanwhile are not lost:
    each leaves its own note, and what this wrote of a reference deleted meanwhile is dropped by every
    search, and removed by `index verify --repair` or the next rebuild.
    """

    record: Record
    index: VectorIndex
    cipher: Cipher

    async def __call__(
        self, *, workspace: WorkspaceId, gallery: GalleryId | str, counted: Counted = lambda _: None
    ) -> int:
        """Return how many references were written."""
        place = await self.record.gallery(workspace, gallery)
        await self.index.clear(place.id)
        done = 0
        after: ReferenceId | None = None
        while sealed := await self.record.all_templates(workspace, place.id, after=after, limit=_BATCH):
            await self.index.upsert(
                [
                    Entry(reference=one.reference, person=one.person, gallery=place.id, embedding=embedding)
                    for one, embedding in zip(sealed, opened(self.cipher, sealed, place), strict=True)
                ]
            )
            after = sealed[-1].reference
            done += len(sealed)
            counted(done)
        return done
