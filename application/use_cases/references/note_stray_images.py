from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar, final
from uuid import UUID

from application.ports.blob_store import BlobStore
from application.ports.clock import Clock
from application.ports.erasures import KeptReference, Traces
from application.ports.repositories import ReconciliationRepository, WorkspaceRepository
from application.ports.transaction import Transaction
from application.use_cases.references.places import IMAGES
from application.use_cases.spaces import ServedSpaces
from domain.enrolment import ReferenceId
from domain.errors import WorkspaceNotFound
from domain.workspace import WorkspaceId

_PAGE: Final = 1000

T = TypeVar("T", ReferenceId, KeptReference)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class NoteStrayImages:
    """Note the images of references that the record does not have, so that upkeep removes them.

    A record that comes from a backup knows nothing of those that were kept since. What is being enrolled at this
    moment is noted before its image is put, and is left alone.
    """

    workspaces: WorkspaceRepository
    blobs: BlobStore
    traces: Traces
    reconciliations: ReconciliationRepository
    spaces: ServedSpaces
    transaction: Transaction
    clock: Clock

    async def __call__(self, *, workspace: WorkspaceId) -> int:
        """Return how many were noted; none of a workspace that the record does not have. Raises `PortUnavailable`."""
        try:
            await self.workspaces.get(workspace)
        except WorkspaceNotFound:
            return 0
        noted = 0
        after: ReferenceId | None = None
        page: list[ReferenceId] = []
        async for key in self.blobs.keys(f"{IMAGES}/{workspace}/"):
            try:
                page.append(ReferenceId(UUID(key.rpartition("/")[2])))
            except ValueError:
                continue
            if len(page) == _PAGE:
                noted += await self._note(workspace, page, after)
                after = page[-1]
                page = []
        return noted + await self._note(workspace, page, after)

    async def _note(self, workspace: WorkspaceId, page: Sequence[ReferenceId], after: ReferenceId | None) -> int:
        """Look at images that were listed, in order, before the record is asked: no row comes without a note."""
        stray = set(page)
        await self._take_out(stray, workspace, self.traces.references, lambda one: one.id, after)
        await self._take_out(stray, workspace, self.traces.noted, lambda one: one, after)
        # In which space they were nobody knows. One that is served is named: a note of another one waits for that.
        await self.reconciliations.note(workspace, sorted(stray), space=self.spaces.first.id, due=self.clock.now())
        await self.transaction.commit()
        return len(stray)

    async def _take_out(
        self,
        stray: set[ReferenceId],
        workspace: WorkspaceId,
        page_of: Callable[..., Awaitable[Sequence[T]]],
        id_of: Callable[[T], ReferenceId],
        after: ReferenceId | None,
    ) -> None:
        last = max(stray, default=None)
        while last is not None and (page := await page_of(workspace, after=after, limit=_PAGE)):
            stray.difference_update(map(id_of, page))
            after = id_of(page[-1])
            if after >= last:
                return
