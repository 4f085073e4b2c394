from collections.abc import AsyncIterator, Collection, Sequence
from typing import final
from uuid import UUID

from application.ports.vector_index import Droppable, Entry, Neighbour, VectorIndex
from domain.embedding import Embedding, EmbeddingSpace
from domain.enrolment import ReferenceId
from domain.gallery import GalleryId
from domain.person import PersonId
from domain.similarity import similarities


@final
class MemoryVectorIndex(VectorIndex, Droppable):
    """Compares with every entry of the gallery, in one process that forgets all when it ends."""

    def __init__(self, space: EmbeddingSpace) -> None:
        self._space = space
        self._entries: dict[ReferenceId, Entry] = {}

    async def search(
        self,
        probe: Embedding,
        *,
        gallery: GalleryId,
        people: int,
        per_person: int = 1,
        among: Sequence[PersonId] | None = None,
    ) -> Sequence[Neighbour]:
        self._space.require(probe)
        wanted = None if among is None else set(among)
        nearest = self._nearest(
            probe, [entry for entry in self._of(gallery) if wanted is None or entry.person in wanted]
        )
        best = dict.fromkeys(neighbour.person for neighbour in nearest)
        return _at_most(per_person, nearest, list(best)[:people])

    async def upsert(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._space.require(entry.embedding)
        self._entries.update((entry.reference, entry) for entry in entries)

    async def remove(self, references: Sequence[ReferenceId]) -> None:
        for reference in references:
            self._entries.pop(reference, None)

    async def entries(self, gallery: GalleryId) -> AsyncIterator[Entry]:
        for entry in sorted(self._of(gallery), key=_reference):
            yield entry

    async def clear(self, gallery: GalleryId) -> None:
        await self.remove([entry.reference for entry in self._of(gallery)])

    async def drop(self) -> bool:
        self._entries.clear()
        return True

    def _of(self, gallery: GalleryId) -> list[Entry]:
        return [entry for entry in self._entries.values() if entry.gallery == gallery]

    @staticmethod
    def _nearest(probe: Embedding, entries: Sequence[Entry]) -> list[Neighbour]:
        cosines = similarities(probe, [entry.embedding for entry in entries])
        neighbours = [
            Neighbour(reference=entry.reference, person=entry.person, similarity=float(cosine))
            for entry, cosine in zip(entries, cosines, strict=True)
        ]
        return sorted(neighbours, key=lambda neighbour: (-neighbour.similarity, neighbour.reference))


def _at_most(per_person: int, nearest: Sequence[Neighbour], people: Collection[PersonId]) -> list[Neighbour]:
    left = dict.fromkeys(people, per_person)
    kept = []
    for neighbour in nearest:
        if left.get(neighbour.person, 0) > 0:
            left[neighbour.person] -= 1
            kept.append(neighbour)
    return kept


def _reference(entry: Entry) -> UUID:
    return entry.reference
