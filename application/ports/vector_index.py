"""The port to nearest-neighbour search."""

from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from domain.embedding import Embedding, EmbeddingSpace
from domain.enrolment import ReferenceId
from domain.gallery import GalleryId
from domain.person import PersonId


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One reference as the index holds it."""

    reference: ReferenceId
    person: PersonId
    gallery: GalleryId
    embedding: Embedding


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """One reference that is proposed for a probe."""

    reference: ReferenceId
    person: PersonId
    similarity: float
    """Cosine in [-1, 1] as the backend sees it, good to about 1e-3; decisions never rest on it."""


class VectorIndex(Protocol):
    """Nearest references in one gallery of one embedding space: a view that can be rebuilt, never the record.

    When it is down, search answers `PortUnavailable`; verification does not need it, and enrolment
    leaves a reconciliation behind that upkeep repeats.
    """

    @abstractmethod
    async def search(
        self,
        probe: Embedding,
        *,
        gallery: GalleryId,
        people: int,
        per_person: int = 1,
        among: Sequence[PersonId] | None = None,
    ) -> Sequence[Neighbour]:
        """Return the best references of the `people` nearest people, at most `per_person` of each.

        Best first by cosine similarity, ties by reference id. Fewer only where the gallery holds fewer:
        several references of one person never crowd out others. `among` limits the search to these
        people; an empty one finds nobody. An unknown gallery is an empty one. What was written before
        is seen, what was removed is not. Raises `SpaceMismatch` for a probe of another space and
        `PortUnavailable`.
        """

    @abstractmethod
    async def upsert(self, entries: Sequence[Entry]) -> None:
        """Write entries; a reference that is there is replaced, the last of duplicates counts.

        All of them or none. Raises `SpaceMismatch` and `PortUnavailable`.
        """

    @abstractmethod
    async def remove(self, references: Sequence[ReferenceId]) -> None:
        """Remove references; those that are not there are passed over. Raises `PortUnavailable`."""

    @abstractmethod
    def entries(self, gallery: GalleryId) -> AsyncIterator[Entry]:
        """Walk through all entries of a gallery, by reference id; to compare the index with the record."""

    @abstractmethod
    async def clear(self, gallery: GalleryId) -> None:
        """Remove all entries of a gallery; nothing happens where there are none. Raises `PortUnavailable`."""


@runtime_checkable
class Droppable(Protocol):
    """What an index can do besides: be removed altogether, with what it holds of galleries that nobody knows any more.

    One that cannot is emptied gallery by gallery, of those that there are.
    """

    @abstractmethod
    async def drop(self) -> bool:
        """Remove the whole storage of the space: table or collection, and its graphs; nothing happens twice.

        Return True; False, and nothing was removed, is for what wraps another index that cannot. Whoever opens the
        index next makes it anew, empty; until then writes and searches are refused, not answered as by an empty one.
        Raises `PortUnavailable`.
        """


class VectorIndexFactory(Protocol):
    """What an entry point of the group `facepass.vector_index` names."""

    @abstractmethod
    def __call__(
        self, *, space: EmbeddingSpace, options: Mapping[str, str]
    ) -> AbstractAsyncContextManager[VectorIndex]:
        """Open the index of one space for a block, made where it is missing.

        `options` are the settings `FACEPASS_VECTOR_INDEX__OPTIONS__*` in lower case. The vectors that come are
        turned by a secret rotation: cosines are as they should be, single numbers mean nothing.
        """
