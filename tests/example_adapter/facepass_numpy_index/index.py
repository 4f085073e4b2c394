"""The port's methods, and the factory that the entry point names."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, final
from uuid import UUID
from zipfile import BadZipFile

import numpy as np

from application.ports.errors import PortRejected, PortUnavailable
from application.ports.ping import Ping
from application.ports.vector_index import Entry, Neighbour, VectorIndex
from domain.embedding import Embedding, EmbeddingSpace, require_same_space
from domain.enrolment import ReferenceId
from domain.errors import SpaceMismatch
from domain.gallery import GalleryId
from domain.person import PersonId
from facepass_numpy_index.files import Gallery, GalleryFiles

PORT: Final = "vector_index"


@asynccontextmanager
async def open_index(*, space: EmbeddingSpace, options: Mapping[str, str]) -> AsyncIterator[VectorIndex]:
    """Open the index of one space below `FACEPASS_VECTOR_INDEX__OPTIONS__FOLDER`, made where it is missing."""
    if options.keys() != {"folder"}:
        raise PortRejected(PORT, f"numpy-files takes the option FOLDER and no other; it was given {sorted(options)}")
    yield NumpyFilesVectorIndex(Path(options["folder"]), space)


@final
class NumpyFilesVectorIndex(VectorIndex, Ping):
    """Compares with every reference of the gallery, whose file it reads for each search.

    Exact, and good for some thousands of references on one machine: a search of 5,000 takes 50 ms, and a
    write rewrites each gallery that it changes after looking through all of them.
    """

    def __init__(self, folder: Path, space: EmbeddingSpace) -> None:
        """Use a folder of the space's own in `folder`, made where it is missing. Raises `PortUnavailable`."""
        self._space = space
        with translated():
            self._files = GalleryFiles(folder.expanduser().absolute() / space.digest[:12], space.dimension)

    @property
    def name(self) -> str:
        """The port's."""
        return PORT

    async def ping(self) -> None:
        """Write a file."""
        try:
            async with asyncio.timeout(2.0):
                with translated():
                    await asyncio.to_thread(self._files.check)
        except TimeoutError as error:
            raise PortUnavailable(PORT, "the disk does not answer") from error

    async def search(
        self,
        probe: Embedding,
        *,
        gallery: GalleryId,
        people: int,
        per_person: int = 1,
        among: Sequence[PersonId] | None = None,
    ) -> Sequence[Neighbour]:
        """Compare in a thread: neither the disk nor the arithmetic may keep the event loop."""
        self._require_ours(probe)
        allowed = None if among is None else frozenset(among)
        return await asyncio.to_thread(self._search, probe, gallery, people, per_person, allowed)

    async def upsert(self, entries: Sequence[Entry]) -> None:
        """Write them; where a reference was in another gallery, it leaves that one."""
        for entry in entries:
            self._require_ours(entry.embedding)
        last = {entry.reference: entry for entry in entries}
        galleries = {entry.gallery for entry in last.values()}
        put: dict[UUID, Gallery] = {
            gallery: _rows([one for one in last.values() if one.gallery == gallery]) for gallery in galleries
        }
        await self._change(take=last.keys(), put=put)

    async def remove(self, references: Sequence[ReferenceId]) -> None:
        """Take them out of all galleries."""
        await self._change(take=frozenset(references), put={})

    async def entries(self, gallery: GalleryId) -> AsyncIterator[Entry]:
        """Walk through the file as it is when the walk begins."""
        with translated():
            found = await asyncio.to_thread(self._files.read, gallery)
        for reference, person, vector in zip(*found, strict=True):
            embedding = Embedding(vector, self._space.id)
            yield Entry(reference=ReferenceId(reference), person=PersonId(person), gallery=gallery, embedding=embedding)

    async def clear(self, gallery: GalleryId) -> None:
        """Delete the file."""
        with translated():
            await asyncio.to_thread(self._files.remove, gallery)

    async def _change(self, *, take: Collection[UUID], put: Mapping[UUID, Gallery]) -> None:
        if take:
            with translated():
                await asyncio.to_thread(self._files.change, take=take, put=put)

    def _search(
        self, probe: Embedding, gallery: GalleryId, people: int, per_person: int, among: frozenset[PersonId] | None
    ) -> Sequence[Neighbour]:
        with translated():
            found = self._files.read(gallery)
        counted: Counter[UUID] = Counter()
        nearest = []
        for row, similarity in _ranked(probe, found):
            person = found.people[row]
            if among is not None and person not in among:
                continue
            if counted[person] < per_person and (person in counted or len(counted) < people):
                counted[person] += 1
                reference = ReferenceId(found.references[row])
                nearest.append(Neighbour(reference=reference, person=PersonId(person), similarity=similarity))
        return nearest

    def _require_ours(self, embedding: Embedding) -> None:
        require_same_space(self._space.id, embedding.space)
        if embedding.dimension != self._space.dimension:
            raise SpaceMismatch(f"{self._space.id} has {self._space.dimension} dimensions, not {embedding.dimension}")


@contextmanager
def translated() -> Iterator[None]:
    """Let a folder that is gone, a full disk or a damaged file end as `PortUnavailable`, without naming paths."""
    try:
        yield
    except OSError as error:
        raise PortUnavailable(PORT, f"the folder cannot be used: {error.strerror or type(error).__name__}") from error
    except (BadZipFile, EOFError, KeyError, ValueError) as error:
        raise PortUnavailable(PORT, "a file is damaged: delete it, then `facepass index rebuild`") from error


def _ranked(probe: Embedding, gallery: Gallery) -> Iterator[tuple[int, float]]:
    """Yield rows and cosines, best first, ties by reference: rows are in that order, and the sort keeps it."""
    # Sums a row, not a matrix product: BLAS may add equal rows up differently, and ties would be none.
    wide = gallery.vectors.astype(np.float64)
    cosines = np.clip((wide * probe.vector).sum(axis=1), -1.0, 1.0)
    for row in np.argsort(-cosines, kind="stable"):
        yield int(row), float(cosines[row])


def _rows(entries: Sequence[Entry]) -> Gallery:
    return Gallery(
        [entry.reference for entry in entries],
        [entry.person for entry in entries],
        np.stack([entry.embedding.vector for entry in entries]),
    )
