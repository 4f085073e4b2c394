from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import final

from application.ports.audit import AuditTrail
from application.ports.clock import Clock
from application.ports.repositories import GalleryRepository, PersonRepository
from application.ports.transaction import Transaction
from application.use_cases.audit.changed_fields import changed_fields
from domain.audit import AuditAction, AuditEvent
from domain.errors import PersonMerged, VersionMismatch
from domain.gallery import GalleryId
from domain.person import Person, PersonId, checked_external_id, checked_metadata
from domain.retention import Retention
from domain.workspace import WorkspaceId


class Unchanged:
    """Stands for a field that the call leaves as it is; None takes one away."""


UNCHANGED = Unchanged()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class UpdatePerson:
    """Change a person's `external_id`, metadata (as a whole), or how long they are kept.

    With `If-Match` the change is made only to the version that was seen.
    """

    galleries: GalleryRepository
    people: PersonRepository
    audit: AuditTrail
    transaction: Transaction
    clock: Clock

    async def __call__(
        self,
        *,
        workspace: WorkspaceId,
        gallery: GalleryId | str,
        person: PersonId,
        external_id: str | Unchanged | None = UNCHANGED,
        metadata: Mapping[str, str] | Unchanged = UNCHANGED,
        retention_days: int | Unchanged | None = UNCHANGED,
        consent_expires_at: datetime | Unchanged | None = UNCHANGED,
        version: int | None = None,
    ) -> Person:
        place = await self.galleries.get(workspace, gallery)
        found = await self.people.get(workspace, place.id, person)
        if version is not None and version != found.version:
            raise VersionMismatch(f"the person is at version {found.version}, not {version}: read them again")
        if found.merged_into is not None:
            raise PersonMerged(f"the person was merged into {found.merged_into}: change that one")
        retention = Retention(
            days=found.retention_days if isinstance(retention_days, Unchanged) else retention_days,
            consent_expires_at=(
                found.consent_expires_at if isinstance(consent_expires_at, Unchanged) else consent_expires_at
            ),
        )
        changed = replace(
            found,
            retention_days=retention.days,
            consent_expires_at=retention.consent_expires_at,
            external_id=found.external_id if isinstance(external_id, Unchanged) else checked_external_id(external_id),
            metadata=found.metadata if isinstance(metadata, Unchanged) else checked_metadata(metadata),
            updated_at=self.clock.now(),
            version=found.version + 1,
        )
        await self.people.save(changed)
        self.audit.note(
            AuditEvent(
                workspace=workspace,
                action=AuditAction.PERSON_UPDATED,
                subject=found.id,
                gallery=place.id,
                details={
                    "changed": changed_fields(
                        found, changed, "external_id", "metadata", "retention_days", "consent_expires_at"
                    ),
                    "version": changed.version,
                },
            )
        )
        await self.transaction.commit()
        return changed
