from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import final

import numpy as np

from application.ports.cipher import Cipher
from application.ports.index_states import IndexName, IndexStates
from application.ports.record import Record, SealedTemplate
from application.ports.vector_index import Entry
from application.use_cases.matching.templates import opened_or_damaged
from application.use_cases.spaces import ServedSpaces
from domain.embedding import Embedding, SpaceId
from domain.enrolment import ReferenceId
from domain.gallery import Gallery, GalleryId
from domain.workspace import WorkspaceId

_BATCH = 1000

PRECISION = 1e-3
"""How far a component may be off: what half-precision storage costs."""

Seen = Callable[[ReferenceId], None]
"""Called with each reference of the record, as it is compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexReport:
    """Where record and index do not agree."""

    references: int
    """In the record."""
    missing: tuple[ReferenceId, ...]
    """In the record, not in the index."""
    superfluous: tuple[ReferenceId, ...]
    """In the index, not in the record."""
    different: tuple[ReferenceId, ...]
    """In both, with another person or another vector."""
    damaged: tuple[ReferenceId, ...] = ()
    """In the record, with a template that does not open: nothing can be compared, and no index can be given them."""

    @property
    def named(self) -> tuple[ReferenceId, ...]:
        """Those that writing them anew brings in line."""
        return self.missing + self.superfluous + self.different

    @property
    def agrees(self) -> bool:
        """Whether the index is what a rebuild would make it."""
        return not self.named


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyIndex:
    """Compare a gallery's index with the record, id by id and vector by vector, and name what differs.

    Both are walked side by side, by reference id, a stretch of each in memory. A template that is damaged holds up
    no other.
    """

    record: Record
    states: IndexStates
    spaces: ServedSpaces
    cipher: Cipher

    async def __call__(
        self,
        *,
        workspace: WorkspaceId,
        gallery: GalleryId | str,
        index: IndexName | None = None,
        space: SpaceId | None = None,
        seen: Seen = lambda _: None,
    ) -> IndexReport:
        """Compare the index of that name, or the one that answers searches; in a space, or in the gallery's own."""
        place = await self.record.gallery(workspace, gallery)
        name = index or (await self.states.now()).serving
        space = space or place.space
        indexed = self.spaces.of(space).index(name).entries(place.id)
        missing: list[ReferenceId] = []
        superfluous: list[ReferenceId] = []
        different: list[ReferenceId] = []
        damaged: list[ReferenceId] = []
        references = 0
        entry = await anext(indexed, None)
        async for one, embedding in self._recorded(place, space):
            while entry is not None and entry.reference < one:
                superfluous.append(entry.reference)
                entry = await anext(indexed, None)
            held, entry = (entry, await anext(indexed, None)) if entry and entry.reference == one else (None, entry)
            references += 1
            seen(one)
            if embedding is None:
                damaged.append(one)
            elif held is None:
                missing.append(one)
            elif not _same(held, *embedding):
                different.append(one)
        while entry is not None:
            superfluous.append(entry.reference)
            entry = await anext(indexed, None)
        return IndexReport(
            references=references,
            missing=tuple(missing),
            superfluous=tuple(superfluous),
            different=tuple(different),
            damaged=tuple(damaged),
        )

    async def _recorded(
        self, gallery: Gallery, space: SpaceId
    ) -> AsyncIterator[tuple[ReferenceId, tuple[SealedTemplate, Embedding] | None]]:
        """Walk the record by reference id; None stands for a template that does not open."""
        after: ReferenceId | None = None
        while sealed := await self.record.all_templates(
            gallery.workspace, gallery.id, after=after, limit=_BATCH, space=space
        ):
            found, _ = opened_or_damaged(self.cipher, sealed, gallery)
            opened = {one.reference: (one, embedding) for one, embedding in found}
            for one in sealed:
                yield one.reference, opened.get(one.reference)
            after = sealed[-1].reference


def _same(entry: Entry, one: SealedTemplate, embedding: Embedding) -> bool:
    off = np.abs(entry.embedding.vector - embedding.vector)
    return entry.person == one.person and bool(off.max() <= PRECISION)
