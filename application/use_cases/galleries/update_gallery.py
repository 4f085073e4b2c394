from dataclasses import dataclass, replace
from typing import final

from application.ports.audit import AuditTrail
from application.ports.clock import Clock
from application.ports.repositories import GalleryRepository
from application.ports.transaction import Transaction
from application.use_cases.audit.changed_fields import changed_fields
from domain.audit import AuditAction, AuditEvent
from domain.errors import GalleryKept, VersionMismatch
from domain.gallery import DEFAULT_GALLERY, Gallery, GalleryId, Policy, checked_gallery_name
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateGallery:
    """Change a gallery's name or policy; its embedding space stays. The default gallery keeps its name.

    With `If-Match` the change is made only to the version that was seen.
    """

    galleries: GalleryRepository
    audit: AuditTrail
    transaction: Transaction
    clock: Clock

    async def __call__(
        self,
        *,
        workspace: WorkspaceId,
        gallery: GalleryId | str,
        name: str | None = None,
        policy: Policy | None = None,
        version: int | None = None,
    ) -> Gallery:
        found = await self.galleries.get(workspace, gallery)
        if version is not None and version != found.version:
            raise VersionMismatch(f"the gallery is at version {found.version}, not {version}: read it again")
        if name is not None and name != found.name and found.name == DEFAULT_GALLERY:
            raise GalleryKept("the default gallery keeps its name: calls without a gallery mean it")
        changed = replace(
            found,
            name=found.name if name is None else checked_gallery_name(name),
            policy=found.policy if policy is None else policy,
            updated_at=self.clock.now(),
            version=found.version + 1,
        )
        await self.galleries.save(changed)
        self.audit.note(
            AuditEvent(
                workspace=workspace,
                action=AuditAction.GALLERY_UPDATED,
                subject=found.id,
                gallery=found.id,
                details={
                    "changed": changed_fields(found, changed, "name", "policy"),
                    "version": changed.version,
                },
            )
        )
        await self.transaction.commit()
        return changed
