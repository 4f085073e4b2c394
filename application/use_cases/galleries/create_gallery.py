from dataclasses import dataclass
from typing import final

from application.ports.audit import AuditTrail
from application.ports.clock import Clock
from application.ports.id_generator import IdGenerator
from application.ports.repositories import GalleryRepository
from application.ports.transaction import Transaction
from application.use_cases.idempotency import Once, RememberedAnswers
from application.use_cases.spaces import ServedSpaces
from domain.audit import AuditAction, AuditEvent
from domain.gallery import Gallery, GalleryId, Policy, checked_gallery_name
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CreateGallery:
    """Make an empty gallery, bound to the embedding space of the current face model.

    Its name is unique in the workspace. What the policy leaves out has the service's defaults.
    """

    spaces: ServedSpaces
    galleries: GalleryRepository
    remembered: RememberedAnswers
    audit: AuditTrail
    transaction: Transaction
    ids: IdGenerator
    clock: Clock

    async def __call__(
        self, *, workspace: WorkspaceId, name: str, policy: Policy, once: Once[Gallery] | None = None
    ) -> Gallery:
        earlier = await self.remembered.earlier(workspace, once)
        if earlier is not None:
            return earlier
        now = self.clock.now()
        gallery = Gallery(
            id=GalleryId(self.ids.new()),
            workspace=workspace,
            name=checked_gallery_name(name),
            space=self.spaces.first.id,
            policy=policy,
            created_at=now,
            updated_at=now,
            version=1,
        )
        kept = await self.remembered.keep(workspace, once, gallery)
        if not kept:
            await self.transaction.rollback()
            return await self.remembered.committed(workspace, once)
        await self.galleries.add(gallery)
        self.audit.note(
            AuditEvent(workspace=workspace, action=AuditAction.GALLERY_CREATED, subject=gallery.id, gallery=gallery.id)
        )
        await self.transaction.commit()
        return gallery
