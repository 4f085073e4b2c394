from dataclasses import dataclass, replace
from typing import final

from application.ports.audit import AuditTrail
from application.ports.clock import Clock
from application.ports.repositories import (
    GalleryRepository,
    PersonRepository,
    ReconciliationRepository,
    ReferenceRepository,
)
from application.ports.transaction import Transaction
from application.use_cases.references.reconcile import Reconcile
from domain.audit import AuditAction, AuditEvent
from domain.errors import PersonMerged
from domain.gallery import GalleryId
from domain.person import Person, PersonId
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class UnmergePeople:
    """Undo a merge: the references that the merged person brought go back to them.

    Those are the ones enrolled for them, and for whoever was merged into them before. References enrolled
    after the merge stay with the person they were enrolled for. A merge of a merge is undone from the
    last one backwards.
    """

    galleries: GalleryRepository
    people: PersonRepository
    references: ReferenceRepository
    reconciliations: ReconciliationRepository
    reconcile: Reconcile
    audit: AuditTrail
    transaction: Transaction
    clock: Clock

    async def __call__(
        self, *, workspace: WorkspaceId, gallery: GalleryId | str, source: PersonId, target: PersonId
    ) -> Person:
        """Return the person `source`, who has their references back.

        Raises `PersonMerged` where no such merge is, and where `target` was merged in turn since.
        """
        place = await self.galleries.get(workspace, gallery)
        # Locked in one order, as for a merge.
        both = {person: await self.people.get(workspace, place.id, person) for person in sorted((source, target))}
        merged, survivor = both[source], both[target]
        if merged.merged_into != target:
            raise PersonMerged(f"person {source} is not merged into {target}")
        if survivor.merged_into is not None:
            # Their references are with that one: nothing could be given back.
            raise PersonMerged(f"person {target} was merged into {survivor.merged_into}: undo that merge first")
        moved = await self.references.move(workspace, place.id, source=target, target=source, back=True)
        now = self.clock.now()
        restored = replace(merged, merged_into=None, updated_at=now, version=merged.version + 1)
        await self.people.save(restored)
        await self.reconciliations.note(workspace, moved, space=place.space, due=now)
        self.audit.note(
            AuditEvent(
                workspace=workspace,
                action=AuditAction.PERSON_UNMERGED,
                subject=source,
                gallery=place.id,
                details={"from": str(target), "references": len(moved)},
            )
        )
        await self.transaction.commit()
        await self.reconcile.after_commit(workspace=workspace, references=moved)
        return restored
