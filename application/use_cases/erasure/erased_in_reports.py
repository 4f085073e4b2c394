from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass, replace
from typing import final
from uuid import UUID

from application.ports.reports import Report, Reports
from application.use_cases.erasure.ledger import Ledger
from domain.enrolment import ReferenceId
from domain.erasure import ids_in, without
from domain.person import PersonId
from domain.workspace import WorkspaceId

_PAGE = 100


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ErasedInReports:
    """Keep what jobs and moves of galleries tell free of people who were erased."""

    reports: Reports
    ledger: Ledger

    async def forget(
        self, workspace: WorkspaceId, people: Collection[PersonId], references: Collection[ReferenceId]
    ) -> None:
        """Take people and references out of all that was told, in the transaction that erases them."""
        for report in await self.reports.naming(workspace, people):
            content = without(report.content, [*people, *references])
            if content != report.content:
                await self.reports.save(workspace, replace(report, content=content))

    async def forget_digests(self, workspace: WorkspaceId, digests: Collection[bytes]) -> None:
        """Take whomever one of the digests stands for out of all that was told, in the running transaction."""
        named: set[UUID] = set()
        async for report in self._walked(workspace):
            named.update(one for one in ids_in(report.content) if self._stands_for(workspace, one, digests))
        if named:
            await self.forget(workspace, [PersonId(one) for one in named], ())

    async def left_out(
        self, workspace: WorkspaceId, told: Mapping[str, object], *, before: Mapping[str, object] | None = None
    ) -> Mapping[str, object]:
        """Return what is about to be written without whoever was erased while it was found out.

        The caller has locked what it is written to: nobody is in `before`, what stands there, who was erased.
        """
        new = ids_in(told) - ids_in(before)
        standing_for = {digest: one for one in new for digest in self._digests(workspace, one)}
        if not standing_for:
            return told
        erased = await self.reports.erased(workspace, standing_for.keys())
        return without(told, {standing_for[digest] for digest in erased})

    async def found(self, workspace: WorkspaceId, digests: Collection[bytes]) -> tuple[int, int]:
        """Return how many reports there are, and how many name somebody whom one of the digests stands for."""
        walked = found = 0
        async for report in self._walked(workspace):
            walked += 1
            found += any(self._stands_for(workspace, one, digests) for one in ids_in(report.content))
        return walked, found

    async def _walked(self, workspace: WorkspaceId) -> AsyncIterator[Report]:
        after: UUID | None = None
        while page := await self.reports.page(workspace, after=after, limit=_PAGE):
            for report in page:
                yield report
            after = page[-1].id

    def _stands_for(self, workspace: WorkspaceId, one: UUID, digests: Collection[bytes]) -> bool:
        return any(digest in digests for digest in self._digests(workspace, one))

    def _digests(self, workspace: WorkspaceId, one: UUID) -> tuple[bytes, bytes]:
        return self.ledger.person(workspace, PersonId(one)), self.ledger.reference(workspace, ReferenceId(one))
