import asyncio
import math
import socket
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import ClassVar
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from adapters.persistence.database import engine as engine_at
from adapters.security.keyed_hash import HmacKeyedHash
from adapters.security.secret import Secret
from adapters.vector_index.memory import MemoryVectorIndex
from adapters.vector_index.pgvector import PgvectorVectorIndex
from adapters.vector_index.turned import TurnedVectorIndex, orthogonal
from application.conformance.vector_index import (
    SPACE,
    RawCount,
    VectorIndexContract,
    axis,
    embedding,
    entry,
    vectors,
    walked,
)
from application.ports.keyed_hash import KeyedHash
from application.ports.vector_index import Entry, VectorIndex
from domain.embedding import Embedding, EmbeddingSpace
from domain.enrolment import ReferenceId
from domain.gallery import GalleryId
from domain.person import PersonId
from domain.similarity import cosine
from tests.e2e.in_process import StoppableVectorIndex

GALLERY, OTHER_GALLERY = GalleryId(UUID(int=1 << 64)), GalleryId(UUID(int=2 << 64))
KEY, OTHER_KEY = Secret(bytes(32)), Secret(b"\x01" * 32)
WIDE = replace(SPACE, dimension=512)
"""As many dimensions as the larger models have: in fewer, random vectors are more alike."""
ALIKE = 6 / math.sqrt(WIDE.dimension)
"""Cosine of two vectors that know nothing of each other: six standard deviations from 0."""


class CountingHash(KeyedHash):
    """The real one, which remembers how often it was asked and by which thread."""

    def __init__(self) -> None:
        self._real = HmacKeyedHash(KEY)
        self.threads: list[int] = []
        self.broken = False

    def digest(self, purpose: str, data: bytes) -> bytes:
        self.threads.append(threading.get_ident())
        if self.broken:
            raise MemoryError
        return self._real.digest(purpose, data)


def turned(inner: VectorIndex, *, key: Secret = KEY, space: EmbeddingSpace = SPACE) -> TurnedVectorIndex:
    return TurnedVectorIndex(inner, HmacKeyedHash(key), space)


class TestTurnedVectorIndexInMemory(VectorIndexContract):
    can_be_unavailable = False

    @pytest.fixture
    async def index(self) -> VectorIndex:
        return turned(MemoryVectorIndex(SPACE))

    @pytest.fixture
    async def raw_count(self, index: TurnedVectorIndex) -> RawCount:
        async def counted(references: Sequence[ReferenceId]) -> int:
            return len(index._index._entries.keys() & set(references))

        return counted


class PgvectorContract(VectorIndexContract):
    half_precision: ClassVar[bool]

    @pytest.fixture
    async def engine(self, tableless_url: str) -> AsyncIterator[AsyncEngine]:
        made = engine_at(tableless_url, connections=8, timeout=10.0, autocommit=True)
        yield made
        await made.dispose()

    @pytest.fixture
    async def index(self, engine: AsyncEngine) -> VectorIndex:
        inner = PgvectorVectorIndex(engine, SPACE, half_precision=self.half_precision)
        await inner.prepare()
        return turned(inner)

    @pytest.fixture
    async def raw_count(self, index: TurnedVectorIndex, engine: AsyncEngine) -> RawCount:
        async def counted(references: Sequence[ReferenceId]) -> int:
            query = text(f"SELECT count(*) FROM {index._index._table} WHERE reference_id = ANY(:these)")  # noqa: S608 - its own
            async with engine.connect() as connection:
                return await connection.scalar(query, {"these": list(references)})

        return counted

    @pytest.fixture
    async def unavailable(self) -> AsyncIterator[VectorIndex]:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # bound and not listening: every connection is refused
            url = f"postgresql://facepass@127.0.0.1:{taken.getsockname()[1]}/facepass?sslmode=disable"
            engine = engine_at(url, connections=1, timeout=2.0, autocommit=True)
            yield turned(PgvectorVectorIndex(engine, SPACE, half_precision=self.half_precision))
            await engine.dispose()


class TestTurnedVectorIndexInPgvector(PgvectorContract):
    half_precision = False


class TestTurnedVectorIndexInPgvectorOfHalfPrecision(PgvectorContract):
    half_precision = True


def random_unit(number: int, *, space: EmbeddingSpace = WIDE, seed: int = 0) -> list[Embedding]:
    drawn = np.random.default_rng(seed).normal(size=(number, space.dimension))
    return [Embedding.normalised(vector, space.id) for vector in drawn]


def entries_of(embeddings: Sequence[Embedding], *, gallery: GalleryId = GALLERY) -> list[Entry]:
    return [replace(entry(axis(0), gallery), embedding=one) for one in embeddings]


async def as_seen_inside(
    embeddings: Sequence[Embedding],
    *,
    key: Secret = KEY,
    gallery: GalleryId = GALLERY,
    space: EmbeddingSpace = WIDE,
) -> list[Embedding]:
    """What the inner index holds of them."""
    inner = MemoryVectorIndex(space)
    await turned(inner, key=key, space=space).upsert(entries_of(embeddings, gallery=gallery))
    return [one.embedding for one in await walked(inner, gallery)]


async def test_what_is_kept_is_not_the_vector_nor_like_it() -> None:
    true = random_unit(50)
    kept = await as_seen_inside(true)
    assert len(kept) == 50
    assert max(abs(cosine(one, other)) for one in kept for other in true) < ALIKE


async def test_what_is_searched_for_is_turned_like_what_is_kept() -> None:
    inner = MemoryVectorIndex(WIDE)
    index = turned(inner, space=WIDE)
    one, *others = entries_of(random_unit(20))
    await index.upsert([one, *others])
    [found] = await index.search(one.embedding, gallery=GALLERY, people=1)
    assert (found.reference, found.similarity) == (one.reference, 1.0)
    [beside] = await inner.search(one.embedding, gallery=GALLERY, people=1)
    assert abs(beside.similarity) < ALIKE


@pytest.mark.parametrize(
    ("key", "gallery", "digest"),
    [(OTHER_KEY, GALLERY, "c0"), (KEY, OTHER_GALLERY, "c0"), (KEY, GALLERY, "d1")],
    ids=["key", "gallery", "space"],
)
async def test_another_key_gallery_or_space_turns_another_way(key: Secret, gallery: GalleryId, digest: str) -> None:
    [here] = await as_seen_inside(random_unit(1))
    other = replace(WIDE, digest=digest * 32)
    [there] = await as_seen_inside(random_unit(1, space=other), key=key, gallery=gallery, space=other)
    assert abs(float(here.vector @ there.vector)) < ALIKE


async def test_the_same_key_turns_the_same_way_in_a_new_object() -> None:
    assert await as_seen_inside(random_unit(5)) == await as_seen_inside(random_unit(5))


async def test_one_write_to_several_galleries_turns_each_its_own_way() -> None:
    inner = MemoryVectorIndex(WIDE)
    index = turned(inner, space=WIDE)
    [true] = random_unit(1)
    here, there = entries_of([true]), entries_of([true], gallery=OTHER_GALLERY)
    await index.upsert([*here, *there, *here])
    for gallery in (GALLERY, OTHER_GALLERY):
        [kept] = await walked(inner, gallery)
        assert [kept.embedding] == await as_seen_inside([true], gallery=gallery)


async def test_of_duplicates_in_several_galleries_the_last_counts() -> None:
    index = turned(MemoryVectorIndex(SPACE))
    first, last = entry(axis(0), GALLERY), entry(axis(1), OTHER_GALLERY)
    last = replace(last, reference=first.reference)
    await index.upsert([first, entry(axis(2), GALLERY), last])
    assert first.reference not in {one.reference for one in await walked(index, GALLERY)}
    assert [one.reference for one in await walked(index, OTHER_GALLERY)] == [last.reference]


async def test_equal_vectors_stay_equal_however_they_are_written() -> None:
    [true] = random_unit(1)
    alone = await as_seen_inside([true])
    among = await as_seen_inside([*random_unit(70, seed=1), *[true] * 70])
    assert set(among[70:]) == set(alone)


async def test_vectors_come_back() -> None:
    index = turned(MemoryVectorIndex(WIDE), space=WIDE)
    written = entries_of(random_unit(150))
    await index.upsert(written)
    read = await walked(index, GALLERY)
    assert [(one.reference, one.person, one.gallery) for one in read] == [
        (one.reference, one.person, one.gallery) for one in written
    ]
    for one, other in zip(read, written, strict=True):
        assert one.embedding.vector == pytest.approx(other.embedding.vector, abs=1e-6)


@pytest.mark.parametrize("length", [1 - 1e-3 + 3e-8, 1 + 1e-3 - 3e-8])
async def test_a_length_at_the_end_of_what_is_tolerated_is_no_obstacle(length: float) -> None:
    index = turned(MemoryVectorIndex(SPACE))
    for vector in vectors(100):
        long = Embedding(vector.astype(np.float64) / np.linalg.norm(vector.astype(np.float64)) * length, SPACE.id)
        await index.upsert([replace(entry(vector, GALLERY), embedding=long)])
        found = await index.search(long, gallery=GALLERY, people=1)
        assert found[0].similarity == pytest.approx(1.0, abs=1e-6)


async def test_dropping_it_drops_what_keeps_the_vectors_where_that_can_be() -> None:
    for inner, can in ((MemoryVectorIndex(SPACE), True), (StoppableVectorIndex(SPACE), False)):
        index = turned(inner)
        await index.upsert([entry(axis(0), GALLERY)])
        assert await index.drop() is can
        assert bool(await walked(index, GALLERY)) is not can


unit_vectors = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).normal(size=128))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two vectors of 128 dimensions, of which the second may be anything between the first and its opposite."""
    one, other = draw(unit_vectors), draw(unit_vectors)
    share = draw(st.floats(-1.0, 1.0))
    return one, share * one + (1.0 - abs(share)) * other


@settings(derandomize=True, deadline=None)
@given(pairs(), st.binary(min_size=32, max_size=32), st.integers(0, 2**128 - 1))
def test_cosines_are_as_they_were(
    pair: tuple[NDArray[np.float64], NDArray[np.float64]], secret: bytes, gallery: int
) -> None:
    space = replace(SPACE, dimension=128)
    one, other = (Embedding.normalised(vector, space.id) for vector in pair)
    place = GalleryId(UUID(int=gallery))
    kept = asyncio.run(as_seen_inside([one, other], key=Secret(secret), gallery=place, space=space))
    assert cosine(*kept) == pytest.approx(cosine(one, other), abs=1e-6)


@pytest.mark.parametrize("dimension", [1, 2, 3, 31, 128, 512])
def test_the_matrix_is_orthogonal(dimension: int) -> None:
    matrix = orthogonal(b"secret", dimension)
    for precision in (np.float64, np.float32):
        kept = matrix.astype(precision).astype(np.float64)
        assert np.abs(kept.T @ kept - np.eye(dimension)).max() < 1e-6


def test_the_matrix_is_this_one_for_ever() -> None:
    """Were it another, every index that is in use would be worth nothing until it is rebuilt.

    The numbers are those of plain Python: `math` instead of numpy, Gram and Schmidt instead of LAPACK.
    """
    expected = [
        [-0.022950908761253937, 0.9003946536789162, 0.43446832268124863],
        [-0.9318195514792786, 0.1381793208918149, -0.33558724463071193],
        [-0.36219549868543194, -0.41254810980575524, 0.8358340013589475],
    ]
    assert orthogonal(b"secret", 3) == pytest.approx(np.array(expected), abs=1e-12)


async def test_what_is_kept_is_this_for_ever() -> None:
    [kept] = await as_seen_inside([embedding(axis(0))], space=SPACE)
    assert kept.vector[:4] == pytest.approx(np.array([0.1166010, -0.0261484, 0.2838843, -0.1749666]), abs=1e-6)


def test_matrices_are_spread_evenly() -> None:
    """In the plane Haar's measure is an even angle, and as many reflections as rotations."""
    matrices = np.array([orthogonal(number.to_bytes(4, "big"), 2) for number in range(4000)])
    quarters = np.floor(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]) / (np.pi / 2)).astype(int) % 4
    kinds = 2 * quarters + (np.linalg.det(matrices) > 0)
    # 500 each, with a standard deviation of 21.
    assert np.bincount(kinds, minlength=8) == pytest.approx(np.full(8, 500), abs=100)


async def test_first_uses_at_once_make_the_matrix_once_and_in_a_thread() -> None:
    counting = CountingHash()
    index = TurnedVectorIndex(MemoryVectorIndex(SPACE), counting, SPACE)
    probe = embedding(axis(0))
    await asyncio.gather(*(index.search(probe, gallery=GALLERY, people=1) for _ in range(20)))
    await index.upsert([entry(vector, GALLERY) for vector in vectors(10)])
    assert len(counting.threads) == 1
    assert threading.get_ident() not in counting.threads


async def test_who_goes_away_leaves_the_matrix_to_those_who_wait() -> None:
    counting = CountingHash()
    index = TurnedVectorIndex(MemoryVectorIndex(SPACE), counting, SPACE)
    probe = embedding(axis(0))
    first, second = (asyncio.create_task(index.search(probe, gallery=GALLERY, people=1)) for _ in range(2))
    await asyncio.sleep(0)  # both wait
    first.cancel()
    assert list(await second) == []
    assert first.cancelled()
    assert len(counting.threads) == 1


async def test_a_matrix_that_could_not_be_made_is_tried_again() -> None:
    counting = CountingHash()
    index = TurnedVectorIndex(MemoryVectorIndex(SPACE), counting, SPACE)
    probe = embedding(axis(0))
    counting.broken = True
    with pytest.raises(MemoryError):
        await index.search(probe, gallery=GALLERY, people=1)
    counting.broken = False
    assert list(await index.search(probe, gallery=GALLERY, people=1)) == []


async def test_the_matrices_that_were_used_last_are_kept() -> None:
    counting = CountingHash()
    two = 2 * 4 * SPACE.dimension**2
    index = TurnedVectorIndex(MemoryVectorIndex(SPACE), counting, SPACE, memory=two)
    made = []
    for gallery in (1, 2, 1, 3, 1, 2, 3):
        await index.search(embedding(axis(0)), gallery=GalleryId(UUID(int=gallery)), people=1)
        made.append(len(counting.threads))
    assert made == [1, 2, 2, 3, 3, 4, 5]


async def test_a_write_to_more_galleries_than_are_kept_is_whole() -> None:
    index = TurnedVectorIndex(MemoryVectorIndex(SPACE), HmacKeyedHash(KEY), SPACE, memory=1)
    galleries = [GalleryId(UUID(int=number)) for number in range(1, 11)]
    written = [entry(axis(0), gallery) for gallery in galleries]
    await index.upsert(written)
    for one in written:
        [found] = await index.search(embedding(axis(0)), gallery=one.gallery, people=1, among=[PersonId(one.person)])
        assert found.similarity == pytest.approx(1.0, abs=1e-6)
