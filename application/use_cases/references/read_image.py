import asyncio
from dataclasses import dataclass
from typing import final

from application.ports.audit import AuditBatch
from application.ports.blob_store import BlobStore
from application.ports.cipher import Cipher
from application.ports.record import Record
from application.use_cases.references.get_reference import GetReference
from application.use_cases.references.places import image_key, image_place
from domain.audit import AuditAction, AuditEvent
from domain.enrolment import ReferenceId
from domain.errors import ImageNotKept, ReferenceNotFound
from domain.gallery import GalleryId
from domain.workspace import WorkspaceId


@dataclass(frozen=True, slots=True)
class KeptImage:
    """An image as it was enrolled, opened."""

    content: bytes
    media_type: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ReadImage:
    """Return the image a reference was enrolled from, where the gallery keeps images."""

    get_reference: GetReference
    record: Record
    blobs: BlobStore
    cipher: Cipher
    audit: AuditBatch

    async def __call__(self, *, workspace: WorkspaceId, gallery: GalleryId | str, reference: ReferenceId) -> KeptImage:
        found = await self.get_reference(workspace=workspace, gallery=gallery, reference=reference)
        if found.image_key is None or found.image_type is None:
            raise ImageNotKept("the image of this reference was not kept: the gallery's policy said so")
        # Any of its templates has the key. Which one it was enrolled with changes where its gallery settles in a space.
        templates = await self.record.templates(workspace, found.gallery, [reference], space=found.space)
        templates = templates or await self.record.templates(workspace, found.gallery, [reference])
        if not templates:
            raise ReferenceNotFound(f"no reference {reference} in this gallery")
        sealed = await self.blobs.get(image_key(workspace, reference))
        if sealed is None:
            raise ImageNotKept("the image of this reference is not in the blob store")
        content = await asyncio.to_thread(
            self.cipher.open, sealed, key=templates[0].key, place=image_place(workspace, reference)
        )
        self.audit.note(
            AuditEvent(
                workspace=workspace,
                action=AuditAction.IMAGE_READ,
                subject=found.id,
                gallery=found.gallery,
                details={"person": str(found.person)},
            )
        )
        return KeptImage(content, found.image_type)
