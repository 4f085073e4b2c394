from dataclasses import dataclass, replace
from datetime import datetime
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
from domain.errors import InvalidValue, PersonMerged
from domain.gallery import GalleryId
from domain.person import Person, PersonId
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MergePeople:
    """Give all references of one person to another, who is the same human being.

    The one merged stays as an empty entry that says where the references went, so that it can be undone.
    Of two ends of a consent the earlier one holds for both: a merge gives no consent back that was withdrawn.
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
        """Return the person who has the references now. Raises `PersonMerged` where either is merged already."""
        if source == target:
            raise InvalidValue("a person cannot be merged into themselves", field="person_id")
        place = await self.galleries.get(workspace, gallery)
        # Locked in one order, so that two merges of the same two people cannot wait for each other.
        for person in sorted((source, target)):
            if (await self.people.get(workspace, place.id, person)).merged_into is not None:
                raise PersonMerged(f"person {person} was merged already")
        survivor = await self.people.get(workspace, place.id, target)
        merged = await self.people.get(workspace, place.id, source)
        moved = await self.references.move(workspace, place.id, source=source, target=target, back=False)
        now = self.clock.now()
        await self.people.save(replace(merged, merged_into=target, updated_at=now, version=merged.version + 1))
        survivor = replace(
            survivor,
            consent_expires_at=_earlier(survivor.consent_expires_at, merged.consent_expires_at),
            updated_at=now,
            version=survivor.version + 1,
        )
        await self.people.save(survivor)
        await self.reconciliations.note(workspace, moved, space=place.space, due=now)
        self.audit.note(
            AuditEvent(
                workspace=workspace,
                action=AuditAction.PERSON_MERGED,
                subject=source,
                gallery=place.id,
                details={"into": str(target), "references": len(moved)},
            )
        )
        await self.transaction.commit()
        await self.reconcile.after_commit(workspace=workspace, references=moved)
        return survivor


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    return min((end for end in (one, other) if end is not None), default=None)
