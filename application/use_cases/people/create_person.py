from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from application.ports.audit import AuditTrail
from application.ports.cipher import Cipher, DataKeyId
from application.ports.clock import Clock
from application.ports.id_generator import IdGenerator
from application.ports.repositories import GalleryRepository, PersonRepository
from application.ports.transaction import Transaction
from application.use_cases.idempotency import Once, RememberedAnswers
from domain.audit import AuditAction, AuditEvent
from domain.errors import ExternalIdTaken
from domain.gallery import GalleryId
from domain.person import Person, PersonId, checked_external_id, checked_metadata
from domain.retention import NO_END, Retention
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CreatePerson:
    """Make a person without references yet. `external_id` is unique in the gallery."""

    galleries: GalleryRepository
    people: PersonRepository
    remembered: RememberedAnswers
    audit: AuditTrail
    transaction: Transaction
    cipher: Cipher
    ids: IdGenerator
    clock: Clock

    async def __call__(
        self,
        *,
        workspace: WorkspaceId,
        gallery: GalleryId | str,
        external_id: str | None,
        metadata: Mapping[str, str],
        retention: Retention = NO_END,
        once: Once[Person] | None = None,
    ) -> Person:
        earlier = await self.remembered.earlier(workspace, once)
        if earlier is not None:
            return earlier
        found = await self.galleries.get(workspace, gallery)
        now = self.clock.now()
        person = Person(
            id=PersonId(self.ids.new()),
            workspace=workspace,
            gallery=found.id,
            external_id=checked_external_id(external_id),
            metadata=checked_metadata(metadata),
            created_at=now,
            updated_at=now,
            version=1,
            retention_days=retention.days,
            consent_expires_at=retention.consent_expires_at,
        )
        try:
            await self.people.add(person, self.cipher.new_key(DataKeyId(self.ids.new()), workspace=workspace))
        except ExternalIdTaken:
            # By the same call, perhaps, which ended in between.
            await self.transaction.rollback()
            earlier = await self.remembered.earlier(workspace, once)
            if earlier is None:
                raise
            return earlier
        kept = await self.remembered.keep(workspace, once, person, person=person.id)
        if not kept:
            await self.transaction.rollback()
            return await self.remembered.committed(workspace, once)
        self.audit.note(
            AuditEvent(
                workspace=workspace, action=AuditAction.PERSON_CREATED, subject=person.id, gallery=person.gallery
            )
        )
        await self.transaction.commit()
        return person
