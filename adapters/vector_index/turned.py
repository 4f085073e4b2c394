import asyncio
import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from application.ports.keyed_hash import KeyedHash
from application.ports.rotations import UNTURNED_YET, Rotation, Rotations
from application.ports.vector_index import Droppable, Entry, Neighbour, VectorIndex
from domain.embedding import Embedding, EmbeddingSpace
from domain.enrolment import ReferenceId
from domain.gallery import GalleryId
from domain.person import PersonId

PURPOSE: Final = "index-rotation"
"""Of the keyed hash: another one would turn every vector another way, and every index would have to be rebuilt."""

MEMORY: Final = 64 * 2**20
"""Bytes of matrices that are kept, 4 D² for a gallery: 64 galleries of 512 dimensions, 1,024 of 128."""

_PAGE: Final = 100
"""Entries that are turned back at once, in a thread: 4 ms at 512 dimensions."""

_Matrix = NDArray[np.float32]
_Which = tuple[GalleryId, int]
"""A gallery, and the number of one of its rotations."""


@final
class TurnedVectorIndex(VectorIndex, Droppable):
    """Turns every vector by a secret rotation of its gallery before another index sees it, and back again.

    An orthogonal matrix keeps cosines: here to 1e-6, for it works in float32. So the other index proposes the same
    people, and vectors come back from it to 1e-6. It is a hurdle and no encryption: what it is worth stands in
    `docs/decisions/0019-vectors-are-turned.md`.

    The matrix follows from the installation's hashing secret, the gallery, the space and the number of the gallery's
    rotation, so nothing about it is stored, and two indexes of one installation hold the same. What was written before
    under no rotation or under another secret must be written anew. While a gallery changes from one rotation to
    another, searches look by both: a vector that is turned by the one is like nothing by the other, so the nearest
    people come first in one of the two.

    A search costs 28 µs more at 512 dimensions (95th percentile 34) and 13 at 128, an entry that is written about as
    much. The first use of a gallery makes its matrix, in a thread: 40 ms at 512 dimensions, 3 at 128. Measured on two
    cores of 2026.

    Args:
        index: what keeps and compares the turned vectors; of `space`. Pings and upkeep remain its own.
        keyed_hash: what the rotations are derived with.
        space: whose vectors these are.
        rotations: which rotation each gallery has; None: all have the first.
        memory: bytes of matrices that are kept; those of the galleries that were used last, and at least one.
    """

    def __init__(
        self,
        index: VectorIndex,
        keyed_hash: KeyedHash,
        space: EmbeddingSpace,
        *,
        rotations: Rotations | None = None,
        memory: int = MEMORY,
    ) -> None:
        self._index = index
        self._keyed_hash = keyed_hash
        self._space = space
        self._rotations = rotations
        self._matrices = _Matrices(self._made, most=max(1, memory // (4 * space.dimension**2)))

    async def search(
        self,
        probe: Embedding,
        *,
        gallery: GalleryId,
        people: int,
        per_person: int = 1,
        among: Sequence[PersonId] | None = None,
    ) -> Sequence[Neighbour]:
        self._space.require(probe)
        found = [
            await self._index.search(
                _turned(probe, await self._matrices.of((gallery, number))),
                gallery=gallery,
                people=people,
                per_person=per_person,
                among=among,
            )
            for number in (await self._rotation(gallery)).searched
        ]
        return found[0] if len(found) == 1 else _nearest(found, people=people, per_person=per_person)

    async def upsert(self, entries: Sequence[Entry]) -> None:
        places: defaultdict[GalleryId, list[int]] = defaultdict(list)
        for place, entry in enumerate(entries):
            self._space.require(entry.embedding)
            places[entry.gallery].append(place)
        # Gallery by gallery, so that no more matrices are held than are meant to be. One call for all of them, in
        # the order in which they came: all or none, and the last of duplicates counts.
        turned: dict[int, Entry] = {}
        for gallery, these in places.items():
            matrix = await self._matrices.of((gallery, (await self._rotation(gallery)).writes))
            some = await asyncio.to_thread(_all_turned, [entries[place] for place in these], matrix)
            turned.update(zip(these, some, strict=True))
        await self._index.upsert([turned[place] for place in range(len(entries))])

    async def remove(self, references: Sequence[ReferenceId]) -> None:
        await self._index.remove(references)

    async def entries(self, gallery: GalleryId) -> AsyncIterator[Entry]:
        number = (await self._rotation(gallery)).writes
        async for page in _pages(self._index.entries(gallery)):
            matrix = await self._matrices.of((gallery, number))
            for entry in await asyncio.to_thread(_all_turned, page, matrix.T):
                yield entry

    async def clear(self, gallery: GalleryId) -> None:
        await self._index.clear(gallery)

    async def drop(self) -> bool:
        index: object = self._index
        return isinstance(index, Droppable) and await index.drop()

    async def _rotation(self, gallery: GalleryId) -> Rotation:
        return UNTURNED_YET if self._rotations is None else await self._rotations.of(gallery)

    def _made(self, which: _Which) -> _Matrix:
        gallery, number = which
        # 16 bytes and then the name, which holds no NUL: no two are written alike.
        name = self._space.id.encode() + (b"" if number == UNTURNED_YET.writes else b"\x00%d" % number)
        secret = self._keyed_hash.digest(PURPOSE, gallery.bytes + name)
        return orthogonal(secret, self._space.dimension).astype(np.float32)


def orthogonal(secret: bytes, dimension: int) -> NDArray[np.float64]:
    """Return the orthogonal matrix, D x D, that follows from `secret`; of random secrets, Haar-distributed ones.

    The Q of a Gaussian matrix's QR decomposition, each column by the sign of R's diagonal: without that the
    distribution would be the algorithm's (Mezzadri, How to generate random matrices from the classical compact
    groups, Notices of the AMS 54 (2007), 592-604, section 5). Half of them are reflections, which keep cosines too.
    The same on every machine, but for rounding.
    """
    q, r = np.linalg.qr(_gaussian(secret, dimension * dimension).reshape(dimension, dimension))
    signed: NDArray[np.float64] = q * np.copysign(1.0, np.diagonal(r))
    return signed


def _gaussian(secret: bytes, number: int) -> NDArray[np.float64]:
    """Normally distributed numbers that follow from `secret`.

    SHAKE-256 (FIPS 202) as uniform numbers in (0, 1], and these by Box and Muller (A note on the generation of random
    normal deviates, Annals of Mathematical Statistics 29 (1958), 610-611). Not `numpy.random`: the streams of its
    generators may change with its version (NEP 19).
    """
    pairs = -(-number // 2)
    words = np.frombuffer(hashlib.shake_256(secret).digest(16 * pairs), dtype="<u8").reshape(2, pairs)
    uniform = ((words >> np.uint64(11)).astype(np.float64) + 1.0) * 2.0**-53
    length, angle = np.sqrt(-2.0 * np.log(uniform[0])), 2.0 * np.pi * uniform[1]
    return np.concatenate([length * np.cos(angle), length * np.sin(angle)])[:number]


def _turned(embedding: Embedding, matrix: _Matrix) -> Embedding:
    # A product with one vector, never with several: BLAS may add up those in another order, and equal vectors must
    # stay equal to the last bit, or ties would be broken by chance. Normalised, for a length at the very end of what
    # is tolerated must not be rounded beyond it.
    return Embedding.normalised(matrix @ embedding.vector, embedding.space)


def _nearest(found: Sequence[Sequence[Neighbour]], *, people: int, per_person: int) -> list[Neighbour]:
    """Return the best of several searches, each reference once, by the port's own rules."""
    best: dict[ReferenceId, Neighbour] = {}
    for one in (one for some in found for one in some):
        if one.reference not in best or one.similarity > best[one.reference].similarity:
            best[one.reference] = one
    of_person: dict[PersonId, list[Neighbour]] = {}
    for one in sorted(best.values(), key=lambda one: (-one.similarity, one.reference)):
        of_person.setdefault(one.person, []).append(one)
    nearest = [one for some in list(of_person.values())[:people] for one in some[:per_person]]
    return sorted(nearest, key=lambda one: (-one.similarity, one.reference))


def _all_turned(entries: Sequence[Entry], matrix: _Matrix) -> list[Entry]:
    return [replace(entry, embedding=_turned(entry.embedding, matrix)) for entry in entries]


async def _pages(entries: AsyncIterator[Entry]) -> AsyncIterator[list[Entry]]:
    page: list[Entry] = []
    async for entry in entries:
        page.append(entry)
        if len(page) == _PAGE:
            yield page
            page = []
    if page:
        yield page


class _Matrices:
    """Those of the galleries that were used last, each made once and in a thread.

    Args:
        make: makes one.
        most: how many are kept.
    """

    def __init__(self, make: Callable[[_Which], _Matrix], *, most: int) -> None:
        self._make = make
        self._most = most
        self._kept: dict[_Which, asyncio.Task[_Matrix]] = {}
        """The one that was used last is the last."""

    async def of(self, which: _Which) -> _Matrix:
        making = self._kept.pop(which, None)
        if making is None or _failed(making):
            making = asyncio.create_task(asyncio.to_thread(self._make, which))
        self._kept[which] = making
        if len(self._kept) > self._most:
            del self._kept[next(iter(self._kept))]
        # A caller that goes away leaves the work to the others that wait for it.
        return await asyncio.shield(making)


def _failed(making: asyncio.Task[_Matrix]) -> bool:
    return making.done() and (making.cancelled() or making.exception() is not None)
