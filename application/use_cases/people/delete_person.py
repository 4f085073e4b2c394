from dataclasses import dataclass
from typing import final

from application.ports.audit import AuditTrail
from application.ports.clock import Clock
from application.ports.erasures import KeptPeople
from application.ports.repositories import GalleryRepository, PersonRepository, ReconciliationRepository
from application.ports.transaction import Transaction
from application.use_cases.references.reconcile import Reconcile
from domain.audit import AuditAction, AuditEvent
from domain.errors import PersonMerged
from domain.gallery import GalleryId
from domain.person import PersonId
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DeletePerson:
    """Delete a person with all references, templates and kept images, and the key that opens them.

    The next search does not find them, even where the index cannot be reached: answers are joined to
    the record. Somebody merged into another person is deleted with that one: their references are there.
    """

    galleries: GalleryRepository
    people: PersonRepository
    kept: KeptPeople
    reconciliations: ReconciliationRepository
    reconcile: Reconcile
    audit: AuditTrail
    transaction: Transaction
    clock: Clock

    async def __call__(self, *, workspace: WorkspaceId, gallery: GalleryId | str, person: PersonId) -> None:
        place = await self.galleries.get(workspace, gallery)
        found = await self.kept.locked(workspace, place.id, person)
        if found.merged_into is not None:
            # The keys of references that moved are still theirs: without them the survivor's faces would be lost.
            raise PersonMerged(f"the person was merged into {found.merged_into}: delete that one, or undo the merge")
        gone = await self.people.remove(workspace, place.id, found.id)
        await self.reconciliations.note(workspace, gone, space=place.space, due=self.clock.now())
        self.audit.note(
            AuditEvent(
                workspace=workspace,
                action=AuditAction.PERSON_DELETED,
                subject=found.id,
                gallery=place.id,
                details={"references": len(gone)},
            )
        )
        await self.transaction.commit()
        await self.reconcile.after_commit(workspace=workspace, references=gone)
