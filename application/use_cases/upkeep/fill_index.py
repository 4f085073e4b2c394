from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final
from uuid import UUID

from application.ports.index_states import IndexName, IndexState, IndexStates, Mark
from application.ports.repositories import ReferenceRepository
from application.ports.transaction import Transaction
from application.use_cases.upkeep.write_index import AT_ONCE, WriteIndex
from domain.errors import VersionMismatch
from domain.gallery import Gallery

Counted = Callable[[int], None]
"""Called with the number of references done so far, in all galleries."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FillIndex:
    """Write all references to an index that is kept beside the one that answers, beginning where it was left.

    A reference that is not searchable yet is passed over: it is noted, and whoever does what is noted writes both.
    To lock it now would make its enrolment answer that it cannot be found yet.
    """

    states: IndexStates
    references: ReferenceRepository
    write: WriteIndex
    transaction: Transaction

    async def __call__(
        self, *, state: IndexState, to: IndexName, galleries: Sequence[Gallery], counted: Counted
    ) -> None:
        """Fill `to`; `galleries` are by id.

        Raises `VersionMismatch` where another command changed the state, and what the index and the database raise.
        """
        mark = await self.states.mark()
        done = 0 if mark is None else mark.references
        for gallery in galleries:
            if mark is None or gallery.id > mark.gallery:
                done = await self._fill(state, to, gallery, done=done, counted=counted)
            elif gallery.id == mark.gallery:
                done = await self._fill(state, to, gallery, after=mark.reference, done=done, counted=counted)

    async def _fill(
        self,
        state: IndexState,
        to: IndexName,
        gallery: Gallery,
        *,
        after: UUID | None = None,
        done: int,
        counted: Counted,
    ) -> int:
        """Fill one gallery behind `after`, and return how many are done."""
        while True:
            counted(done)
            page = await self.references.page(gallery.workspace, gallery.id, limit=AT_ONCE, after=after)
            await self.transaction.rollback()
            if page.items:
                searchable = [one.id for one in page.items if one.searchable]
                await self.write(gallery=gallery, references=searchable, to=to)
                done += len(page.items)
                mark = Mark(gallery=gallery.id, reference=page.items[-1].id, references=done)
                if not await self.states.set_mark(state, mark):
                    raise VersionMismatch("another command changed or gave up this move meanwhile")
            if (after := page.next_after) is None:
                counted(done)
                return done
