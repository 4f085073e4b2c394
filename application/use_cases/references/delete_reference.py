from dataclasses import dataclass
from typing import final

from application.ports.audit import AuditTrail
from application.ports.clock import Clock
from application.ports.repositories import GalleryRepository, ReconciliationRepository, ReferenceRepository
from application.ports.transaction import Transaction
from application.use_cases.references.reconcile import Reconcile
from domain.audit import AuditAction, AuditEvent
from domain.enrolment import ReferenceId
from domain.gallery import GalleryId
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteReference:
    """Delete one reference with its template and image. The person stays, even without any."""

    galleries: GalleryRepository
    references: ReferenceRepository
    reconciliations: ReconciliationRepository
    reconcile: Reconcile
    audit: AuditTrail
    transaction: Transaction
    clock: Clock

    async def __call__(self, *, workspace: WorkspaceId, gallery: GalleryId | str, reference: ReferenceId) -> None:
        place = await self.galleries.get(workspace, gallery)
        removed = await self.references.remove(workspace, place.id, reference)
        await self.reconciliations.note(workspace, [removed.id], space=place.space, due=self.clock.now())
        self.audit.note(
            AuditEvent(
                workspace=workspace,
                action=AuditAction.REFERENCE_DELETED,
                subject=removed.id,
                gallery=place.id,
                details={"person": str(removed.person)},
            )
        )
        await self.transaction.commit()
        await self.reconcile.after_commit(workspace=workspace, references=[removed.id])
