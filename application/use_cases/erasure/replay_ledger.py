from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, final
from uuid import UUID

from application.ports.audit import AuditTrail
from application.ports.clock import Clock
from application.ports.erasures import Erasures, KeptPeople, KeptPerson, KeptReference, LedgerMark, Traces
from application.ports.repositories import (
    GalleryRepository,
    PersonRepository,
    ReconciliationRepository,
    ReferenceRepository,
)
from application.ports.transaction import Transaction
from application.use_cases.erasure.compare_ledger import CompareLedger
from application.use_cases.erasure.erased_in_reports import ErasedInReports
from application.use_cases.erasure.ledger import Ledger
from application.use_cases.erasure.refile_erasures import RefileErasures
from application.use_cases.jobs.abandon_bulk_enrolments import AbandonBulkEnrolments
from application.use_cases.references.note_stray_images import NoteStrayImages
from application.use_cases.references.reconcile import Reconcile
from domain.audit import AuditAction, AuditEvent
from domain.enrolment import ReferenceId
from domain.erasure import Erasure
from domain.errors import PersonNotFound, ReferenceNotFound
from domain.gallery import GalleryId
from domain.person import PersonId
from domain.workspace import WorkspaceId

MARGIN = timedelta(days=1)
"""How far the mark stays behind the last entry: clocks differ, and an erasure takes a while to be filed."""

_PAGE = 1000

T = TypeVar("T", KeptPerson, KeptReference)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What a replay came to."""

    new: int
    """Entries of the ledger that the database did not know."""
    people: int
    """Erased again."""
    references: int
    """Erased again, those of these people left out."""
    filed_again: int = 0
    """Entries that the database knew, and the ledger had lost."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayLedger:
    """Erase again whoever the ledger says was erased and the database has: it was restored from an older backup.

    Before a service serves. Bulk enrolments that the database has still to do and that were sent before such an
    erasure are ended first: they may bring the person back. Images that the record does not have, since they came after
    the backup, are noted to be removed. What the database knows and the ledger has lost is filed again. Where neither
    has anything new for the other, names of the last days are listed and nothing else. May be interrupted: an erasure
    is known to the database only when it was done.
    """

    ledger: Ledger
    compare: CompareLedger
    refile: RefileErasures
    mark: LedgerMark
    erasures: Erasures
    traces: Traces
    galleries: GalleryRepository
    people: PersonRepository
    kept: KeptPeople
    references: ReferenceRepository
    reconciliations: ReconciliationRepository
    reconcile: Reconcile
    abandon: AbandonBulkEnrolments
    reports: ErasedInReports
    note_stray: NoteStrayImages
    audit: AuditTrail
    transaction: Transaction
    clock: Clock

    async def __call__(self, *, further: Iterable[Erasure] = (), whole: bool = False) -> Replayed:
        """Replay what is new in the ledger, and `further` entries from elsewhere; `whole` looks at all of it.

        Raises `PortUnavailable` where the blob store is away, and `LedgerUnreadable`.
        """
        until = None if whole else await self.mark.replayed_until()
        await self.transaction.rollback()
        compared = await self.compare(since=until)
        entries = {one.id: one for one in further}
        entries = {one: entries[one] for one in await self.compare.unknown(list(entries))}
        for unknown, key in compared.new:
            entries[unknown] = await self.ledger.entry(key)
        # After what is there was read: nothing is written to the ledger of another installation.
        lost = await self.refile(since=until)
        if lost and until is not None:
            lost += await self.refile()
        people = references = 0
        for workspace in sorted({one.workspace for one in entries.values()}):
            these = [one for one in entries.values() if one.workspace == workspace]
            await self.abandon(workspace=workspace, until=max(one.erased_at for one in these))
            digests = {digest for one in these for digest in one.digests}
            people += await self._erase_people(workspace, digests)
            references += await self._erase_references(workspace, digests)
            await self.reports.forget_digests(workspace, digests)
            await self.transaction.commit()
            await self.note_stray(workspace=workspace)
        for one in entries.values():
            await self.erasures.add(one)
        # No further than the ledger is seen to reach, and not where it has lost something: another store may be there
        # in its place, or only a part of it, and what is behind the mark is not looked at again.
        if not lost and compared.newest is not None:
            await self.mark.set_replayed_until(min(compared.newest, self.clock.now()) - MARGIN)
        await self.transaction.commit()
        return Replayed(new=len(entries), people=people, references=references, filed_again=lost)

    async def _erase_people(self, workspace: WorkspaceId, digests: Collection[bytes]) -> int:
        erased: dict[PersonId, KeptPerson] = {}
        others: list[KeptPerson] = []
        async for person in self._walked(self.traces.people, workspace):
            if self.ledger.person(workspace, person.id) in digests:
                erased[person.id] = person
            elif person.merged_into is not None:
                others.append(person)
        merged = {one.id: one.merged_into for one in (*erased.values(), *others)}
        for person in others:
            if person.merged_into in erased:
                merged[person.id] = None
                await self._part(workspace, person, holder=_survivor_of(person.merged_into, merged))
        for person in erased.values():
            await self._erase(workspace, person)
        return len(erased)

    async def _part(self, workspace: WorkspaceId, person: KeptPerson, *, holder: PersonId) -> None:
        """Take somebody out of one who was erased without them: the merge was undone after this backup.

        Their references are with `holder`, whom that one was merged into in turn.
        """
        place = await self.galleries.get(workspace, person.gallery)
        moved = await self.references.move(workspace, place.id, source=holder, target=person.id, back=True)
        now = self.clock.now()
        await self.kept.part(workspace, person, now=now)
        await self.reconciliations.note(workspace, moved, space=place.space, due=now)
        await self.transaction.commit()
        await self.reconcile.after_commit(workspace=workspace, references=moved)

    async def _erase(self, workspace: WorkspaceId, person: KeptPerson) -> None:
        place = await self.galleries.get(workspace, person.gallery)
        try:
            gone = await self.people.remove(workspace, place.id, person.id)
        except PersonNotFound:  # with somebody they were merged into
            await self.transaction.rollback()
            return
        await self._forget(workspace, place.id, gone, subject=person.id)

    async def _erase_references(self, workspace: WorkspaceId, digests: Collection[bytes]) -> int:
        erased = [
            one
            async for one in self._walked(self.traces.references, workspace)
            if self.ledger.reference(workspace, one.id) in digests
        ]
        for one in erased:
            try:
                await self.references.remove(workspace, one.gallery, one.id)
            except ReferenceNotFound:
                await self.transaction.rollback()
                continue
            await self._forget(workspace, one.gallery, [one.id], subject=one.id)
        return len(erased)

    async def _forget(
        self, workspace: WorkspaceId, gallery: GalleryId, gone: Sequence[ReferenceId], *, subject: UUID
    ) -> None:
        place = await self.galleries.get(workspace, gallery)
        await self.reconciliations.note(workspace, gone, space=place.space, due=self.clock.now())
        self.audit.note(
            AuditEvent(
                workspace=workspace,
                action=AuditAction.PERSON_ERASED,
                subject=subject,
                gallery=gallery,
                details={"replayed": True, "references": len(gone)},
            )
        )
        await self.transaction.commit()
        await self.reconcile.after_commit(workspace=workspace, references=gone)

    async def _walked(self, page_of: Callable[..., Awaitable[Sequence[T]]], workspace: WorkspaceId) -> AsyncIterator[T]:
        after: UUID | None = None
        while page := await page_of(workspace, after=after, limit=_PAGE):
            await self.transaction.rollback()
            for one in page:
                yield one
            after = page[-1].id
        await self.transaction.rollback()


def _survivor_of(person: PersonId, merged: Mapping[PersonId, PersonId | None]) -> PersonId:
    while (into := merged.get(person)) is not None:
        person = into
    return person
