import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from application.ports.index_states import KNOWN_WITHIN, IndexName
from application.use_cases.spaces import ServedSpaces
from application.use_cases.upkeep.compare_decisions import Agreement, CompareDecisions
from application.use_cases.upkeep.verify_index import IndexReport, Seen, VerifyIndex
from application.use_cases.upkeep.write_index import WriteIndex
from domain.embedding import SpaceId
from domain.enrolment import ReferenceId
from domain.errors import GalleryNotFound
from domain.gallery import Gallery, GalleryId

SAMPLE = 200
"""References that are searched for through both indexes."""

Counted = Callable[[int], None]
"""Called with the number of references done so far, in all galleries."""

_Place = tuple[Gallery, SpaceId]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """How an index that was filled compares with the record, and with the one that answers."""

    galleries: Mapping[tuple[GalleryId, SpaceId], IndexReport]
    """What differed at first, in each served space: a gallery that moves to another model is in two."""
    mended: int
    """How many of those differed still after a while, and were written anew."""
    lasting: tuple[ReferenceId, ...]
    """What differs in spite of that."""
    decisions: Agreement | None
    """None where the index that answers cannot be asked here."""

    @property
    def agrees(self) -> bool:
        """Whether the index may take over."""
        return not self.lasting and (self.decisions is None or self.decisions.agrees)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CompareIndexes:
    """Compare an index with the record, mend it, and compare the decisions it leads to with the other's.

    Whoever enrols and deletes meanwhile makes the two differ for a moment. So only what differs twice, with a
    while between, is mended, and only what was mended and differs a third time is held against the index.
    """

    spaces: ServedSpaces
    verify: VerifyIndex
    write: WriteIndex
    compare_decisions: CompareDecisions

    async def __call__(
        self, *, serving: IndexName, to: IndexName, galleries: Sequence[Gallery], counted: Counted
    ) -> Compared:
        """Compare `to` in every served space. Raises what the indexes and the database raise."""
        sample = _Sample(SAMPLE)
        places = [(gallery, space.id) for gallery in galleries for space in self.spaces.all]
        first = {
            (gallery.id, space): await self._verify(gallery, space, to, sample, counted) for gallery, space in places
        }
        differing = [(gallery, space) for gallery, space in places if not first[gallery.id, space].agrees]
        mended, lasting = await self._mend(to, differing, first)
        decisions = None
        if serving in self.spaces.first.indexes:
            decisions = await self.compare_decisions(probes=sample.kept, one=serving, other=to)
        return Compared(galleries=first, mended=mended, lasting=lasting, decisions=decisions)

    async def _verify(
        self, gallery: Gallery, space: SpaceId, to: IndexName, sample: "_Sample", counted: Counted
    ) -> IndexReport:
        def seen(reference: ReferenceId) -> None:
            if space == gallery.space:
                sample.offer(gallery, reference)
                counted(sample.offered)

        return await self._report(gallery, space, to, seen)

    async def _mend(
        self, to: IndexName, places: Sequence[_Place], first: Mapping[tuple[GalleryId, SpaceId], IndexReport]
    ) -> tuple[int, tuple[ReferenceId, ...]]:
        """Return how many were written anew, and those that differ all the same."""
        if places:
            await asyncio.sleep(2 * KNOWN_WITHIN)
        mended: set[ReferenceId] = set()
        lasting: set[ReferenceId] = set()
        for gallery, space in places:
            again = await self._report(gallery, space, to)
            twice = set(first[gallery.id, space].named).intersection(again.named)
            if twice:
                await self.write(gallery=gallery, references=sorted(twice), to=to)
                mended |= twice
                lasting |= twice.intersection((await self._report(gallery, space, to)).named)
        return len(mended), tuple(sorted(lasting))

    async def _report(
        self, gallery: Gallery, space: SpaceId, to: IndexName, seen: Seen = lambda _: None
    ) -> IndexReport:
        try:
            report = await self.verify(
                workspace=gallery.workspace, gallery=gallery.id, index=to, space=space, seen=seen
            )
        except GalleryNotFound:  # deleted meanwhile: nobody was in it
            return IndexReport(references=0, missing=(), superfluous=(), different=())
        # Who could not follow their gallery into another space keeps a template in this one, and no index is given it.
        return report if space == gallery.space else replace(report, missing=())


class _Sample:
    """So many references of all that are offered, each as likely as any other.

    Algorithm R: Vitter, Random sampling with a reservoir, ACM Transactions on Mathematical Software 11 (1985), 37-57.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._random = np.random.default_rng()
        self.offered = 0
        self.kept: list[tuple[Gallery, ReferenceId]] = []

    def offer(self, gallery: Gallery, reference: ReferenceId) -> None:
        self.offered += 1
        if len(self.kept) < self._size:
            self.kept.append((gallery, reference))
        elif (place := int(self._random.integers(self.offered))) < self._size:
            self.kept[place] = gallery, reference
