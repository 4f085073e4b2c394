from dataclasses import dataclass
from typing import final

import numpy as np

from application.ports.cipher import Cipher
from application.ports.index_states import IndexName, IndexStates
from application.ports.record import Record, SealedTemplate
from application.ports.vector_index import Entry
from application.use_cases.matching.templates import opened
from application.use_cases.spaces import ServedSpaces
from domain.embedding import Embedding
from domain.enrolment import ReferenceId
from domain.gallery import GalleryId
from domain.workspace import WorkspaceId

_BATCH = 1000

PRECISION = 1e-3
"""How far a component may be off: what half-precision storage costs."""


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

    @property
    def agrees(self) -> bool:
        """Whether the index is what a rebuild would make it."""
        return not (self.missing or self.superfluous or self.different)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyIndex:
    """Compare a gallery's index with the record, id by id and vector by vector, and name what differs."""

    record: Record
    states: IndexStates
    spaces: ServedSpaces
    cipher: Cipher

    async def __call__(
        self, *, workspace: WorkspaceId, gallery: GalleryId | str, index: IndexName | None = None
    ) -> IndexReport:
        """Compare the index of that name, or the one that answers searches."""
        place = await self.record.gallery(workspace, gallery)
        name = index or (await self.states.now()).serving
        compared = self.spaces.of(place.space).index(name)
        indexed = {entry.reference: entry async for entry in compared.entries(place.id)}
        missing: list[ReferenceId] = []
        different: list[ReferenceId] = []
        references = 0
        after: ReferenceId | None = None
        while sealed := await self.record.all_templates(workspace, place.id, after=after, limit=_BATCH):
            for one, embedding in zip(sealed, opened(self.cipher, sealed, place), strict=True):
                entry = indexed.pop(one.reference, None)
                if entry is None:
                    missing.append(one.reference)
                elif not _same(entry, one, embedding):
                    different.append(one.reference)
            references += len(sealed)
            after = sealed[-1].reference
        return IndexReport(
            references=references,
            missing=tuple(missing),
            superfluous=tuple(sorted(indexed)),
            different=tuple(different),
        )


def _same(entry: Entry, one: SealedTemplate, embedding: Embedding) -> bool:
    return entry.person == one.person and bool(
        np.allclose(entry.embedding.vector, embedding.vector, rtol=0.0, atol=PRECISION)
    )
