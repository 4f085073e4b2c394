from dataclasses import dataclass, replace
from typing import final

from application.ports.clock import Clock
from application.ports.repositories import (
    GalleryRepository,
    PersonRepository,
    ReconciliationRepository,
    ReferenceRepository,
)
from application.ports.transaction import Transaction
from application.use_cases.references.reconcile import Reconcile
from domain.errors import PersonMerged
from domain.gallery import GalleryId
from domain.person import Person, PersonId
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class UnmergePeople:
    """Undo a merge: the references that were enrolled for the merged person go back to them.

    References enrolled after the merge stay with the person they were enrolled for.
    """

    galleries: GalleryRepository
    people: PersonRepository
    references: ReferenceRepository
    reconciliations: ReconciliationRepository
    reconcile: Reconcile
    transaction: Transaction
    clock: Clock

    async def __call__(
        self, *, workspace: WorkspaceId, gallery: GalleryId | str, source: PersonId, target: PersonId
    ) -> Person:
        """Return the person `source`, who has their references back. Raises `PersonMerged` where no such merge is."""
        place = await self.galleries.get(workspace, gallery)
        for person in sorted((source, target)):
            await self.people.get(workspace, place.id, person)
        merged = await self.people.get(workspace, place.id, source)
        if merged.merged_into != target:
            raise PersonMerged(f"person {source} is not merged into {target}")
        moved = await self.references.move(workspace, place.id, source=target, target=source, back=True)
        now = self.clock.now()
        restored = replace(merged, merged_into=None, updated_at=now, version=merged.version + 1)
        await self.people.save(restored)
        await self.reconciliations.note(workspace, moved, space=place.space, due=now)
        await self.transaction.commit()
        await self.reconcile(workspace=workspace, references=moved)
        return restored
