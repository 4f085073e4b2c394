from collections.abc import Callable
from dataclasses import dataclass
from typing import final
from uuid import UUID

from application.ports.audit import AuditTrail
from application.ports.index_states import IndexStates
from application.ports.record import Record
from application.ports.repositories import ReferenceRepository
from application.ports.transaction import Transaction
from application.use_cases.spaces import ServedSpaces
from application.use_cases.upkeep.mend_index import AT_ONCE, MendIndex
from domain.audit import AuditAction, AuditEvent
from domain.gallery import GalleryId
from domain.workspace import WorkspaceId

Counted = Callable[[int], None]
"""Called with the number of references done so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """What a rebuild came to."""

    references: int
    """Of the record, those that the index has now."""
    waiting: int
    """Not in line yet: noted, and tried again by the service."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildIndex:
    """Write every reference of a gallery to the index anew, and remove what only the index has.

    Decisions are the same before, after and meanwhile: nothing is taken away that the record has. Enrolments
    and deletions go on beside it. Where it is stopped, the index is as good as before or better.
    """

    record: Record
    references: ReferenceRepository
    states: IndexStates
    spaces: ServedSpaces
    mend: MendIndex
    audit: AuditTrail
    transaction: Transaction

    async def __call__(
        self, *, workspace: WorkspaceId, gallery: GalleryId | str, counted: Counted = lambda _: None
    ) -> Rebuilt:
        place = await self.record.gallery(workspace, gallery)
        served = self.spaces.of(place.space)
        indexed = {
            entry.reference
            for index in served.written(await self.states.now())
            async for entry in index.entries(place.id)
        }
        done = waiting = 0
        after: UUID | None = None
        more = True
        while more:
            page = await self.references.page(workspace, place.id, limit=AT_ONCE, after=after)
            these = [reference.id for reference in page.items]
            indexed.difference_update(these)
            waiting += await self.mend(workspace=workspace, gallery=place.id, references=these)
            done += len(these)
            counted(done)
            after = page.next_after
            more = after is not None
        stale = await self.mend(workspace=workspace, gallery=place.id, references=sorted(indexed))
        rebuilt = Rebuilt(references=done - waiting, waiting=waiting + stale)
        self.audit.note(
            AuditEvent(
                workspace=workspace,
                action=AuditAction.INDEX_REBUILT,
                subject=place.id,
                gallery=place.id,
                details={"references": rebuilt.references, "waiting": rebuilt.waiting},
            )
        )
        await self.transaction.commit()
        return rebuilt
