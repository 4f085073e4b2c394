# ruff: noqa: S608 - table names are the adapter's own

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import numpy as np
import pytest
from asyncpg.connection import LoggedQuery
from numpy.typing import NDArray
from qdrant_client import AsyncQdrantClient
from sqlalchemy import event, text
from sqlalchemy.engine.interfaces import AdaptedConnection
from sqlalchemy.ext.asyncio import AsyncEngine

from adapters.persistence.database import engine as engine_at
from adapters.vector_index import pgvector
from adapters.vector_index.memory import MemoryVectorIndex
from adapters.vector_index.pgvector import PgvectorVectorIndex
from adapters.vector_index.qdrant import QdrantVectorIndex, open_qdrant
from application.conformance.vector_index import (
    SPACE,
    Galleries,
    RawCount,
    VectorIndexContract,
    around,
    axis,
    embedding,
    entry,
    new_id,
    vectors,
    walked,
)
from application.ports.errors import PortBusy, PortRejected, PortUnavailable
from application.ports.vector_index import Entry, VectorIndex
from application.use_cases.upkeep.verify_index import PRECISION
from domain.enrolment import ReferenceId
from domain.gallery import GalleryId
from domain.person import PersonId
from tests.integration.qdrant_peer import QdrantPeer, refusing_url

QDRANT_URL = os.environ.get("FACEPASS_TEST_QDRANT_URL")  # noqa: TID251 - whoever runs the tests names their server

IN_MEMORY = next((path for path in ("/dev/shm",) if Path(path).is_dir()), None)  # noqa: S108 - a private folder in it

SMALL = 100
"""So few references make a gallery worth an HNSW index in these tests."""


@pytest.fixture
async def engine(tableless_url: str) -> AsyncIterator[AsyncEngine]:
    made = engine_at(tableless_url, connections=8, timeout=10.0, autocommit=True)
    yield made
    await made.dispose()


async def prepared(
    engine: AsyncEngine, *, exact_up_to: int = SMALL, half_precision: bool = False
) -> PgvectorVectorIndex:
    index = PgvectorVectorIndex(engine, SPACE, exact_up_to=exact_up_to, half_precision=half_precision)
    await index.prepare()
    return index


class TestMemoryVectorIndex(VectorIndexContract):
    can_be_unavailable = False

    @pytest.fixture
    async def index(self) -> MemoryVectorIndex:
        return MemoryVectorIndex(SPACE)

    @pytest.fixture
    async def raw_count(self, index: MemoryVectorIndex) -> RawCount:
        async def counted(references: Sequence[ReferenceId]) -> int:
            return len(index._entries.keys() & set(references))

        return counted


class PgvectorContract(VectorIndexContract):
    @pytest.fixture
    async def unavailable(self) -> AsyncIterator[VectorIndex]:
        async with nobody_at_home() as engine:
            yield PgvectorVectorIndex(engine, SPACE)

    @pytest.fixture
    async def raw_count(self, index: PgvectorVectorIndex, engine: AsyncEngine) -> RawCount:
        async def counted(references: Sequence[ReferenceId]) -> int:
            query = text(f"SELECT count(*) FROM {index._table} WHERE reference_id = ANY(:these)")
            async with engine.connect() as connection:
                return await connection.scalar(query, {"these": list(references)})

        return counted


class TestPgvectorVectorIndex(PgvectorContract):
    @pytest.fixture
    async def index(self, engine: AsyncEngine) -> VectorIndex:
        return await prepared(engine, exact_up_to=20_000)


class TestPgvectorVectorIndexOfHalfPrecision(PgvectorContract):
    @pytest.fixture
    async def index(self, engine: AsyncEngine) -> VectorIndex:
        return await prepared(engine, exact_up_to=20_000, half_precision=True)


class TestPgvectorVectorIndexWithHnsw(PgvectorContract):
    """Both galleries have their HNSW index from the start, and the planner no other way."""

    @pytest.fixture
    async def index(self, hnsw_engine: AsyncEngine, galleries: Galleries) -> VectorIndex:
        return await with_hnsw(hnsw_engine, galleries)


class TestPgvectorVectorIndexOfHalfPrecisionWithHnsw(PgvectorContract):
    @pytest.fixture
    async def index(self, hnsw_engine: AsyncEngine, galleries: Galleries) -> VectorIndex:
        return await with_hnsw(hnsw_engine, galleries, half_precision=True)


async def counted_by_qdrant(index: QdrantVectorIndex, references: Sequence[ReferenceId]) -> int:
    return len(await index._client.retrieve(index._collection, [str(one) for one in references], with_payload=False))


class QdrantContract(VectorIndexContract):
    @pytest.fixture
    async def raw_count(self, index: QdrantVectorIndex) -> RawCount:
        return partial(counted_by_qdrant, index)


class TestQdrantVectorIndexInMemory(QdrantContract):
    """Local mode: exact, whatever is asked for."""

    can_be_unavailable = False

    @pytest.fixture
    async def index(self) -> AsyncIterator[VectorIndex]:
        async with open_qdrant(SPACE) as index:
            yield index


class TestQdrantVectorIndexInAFolder(QdrantContract):
    """In memory where the system has such a folder: local mode commits point by point, 25 ms each on a busy disk."""

    can_be_unavailable = False

    @pytest.fixture
    async def index(self) -> AsyncIterator[VectorIndex]:
        with TemporaryDirectory(dir=IN_MEMORY) as folder:
            async with open_qdrant(SPACE, path=Path(folder)) as index:
                yield index


class TestQdrantVectorIndexOverHttp(QdrantContract):
    """The adapter as with a server; behind HTTP stands local mode."""

    @pytest.fixture
    async def index(self) -> AsyncIterator[VectorIndex]:
        async with QdrantPeer() as peer, open_qdrant(SPACE, url=peer.url) as index:
            yield index

    @pytest.fixture
    async def unavailable(self) -> AsyncIterator[VectorIndex]:
        async with unreachable_qdrant() as index:
            yield index


class TestQdrantVectorIndexOnAServer(QdrantContract):
    """Collected where `FACEPASS_TEST_QDRANT_URL` names a server; no package registry carries one."""

    __test__ = QDRANT_URL is not None

    @pytest.fixture
    async def index(self) -> AsyncIterator[VectorIndex]:
        async with open_qdrant(SPACE, url=QDRANT_URL) as index:
            yield index

    @pytest.fixture
    async def unavailable(self) -> AsyncIterator[VectorIndex]:
        async with unreachable_qdrant() as index:
            yield index


@asynccontextmanager
async def unreachable_qdrant() -> AsyncIterator[QdrantVectorIndex]:
    with refusing_url() as url:
        client = AsyncQdrantClient(url=url, check_compatibility=False)
        yield QdrantVectorIndex(client, SPACE)
        await client.close()


async def with_hnsw(engine: AsyncEngine, galleries: Galleries, *, half_precision: bool = False) -> PgvectorVectorIndex:
    index = await prepared(engine, half_precision=half_precision)
    filling = [entry(vector, gallery) for vector in vectors(2 * SMALL) for gallery in galleries]
    await index.upsert(filling)
    for _ in galleries:
        await index.tidy()
    await index.remove([one.reference for one in filling])
    assert await hnsw_indexes(engine) == 2
    return index


GALLERY, OTHER_GALLERY = GalleryId(UUID(int=1 << 64)), GalleryId(UUID(int=2 << 64))


@asynccontextmanager
async def nobody_at_home() -> AsyncIterator[AsyncEngine]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: every connection is refused
        url = f"postgresql://facepass@127.0.0.1:{taken.getsockname()[1]}/facepass?sslmode=disable"
        engine = engine_at(url, connections=1, timeout=2.0, autocommit=True)
        yield engine
        await engine.dispose()


@pytest.fixture
async def hnsw_engine(engine: AsyncEngine, tableless_url: str) -> AsyncIterator[AsyncEngine]:
    """For the few vectors of a test sorting them all is cheaper than a graph, and the planner knows."""
    async with engine.connect() as connection:
        await connection.execute(text(f"ALTER DATABASE {engine.url.database} SET enable_sort = off"))
    made = engine_at(tableless_url, connections=8, timeout=10.0, autocommit=True)
    yield made
    await made.dispose()


@pytest.fixture
async def index(engine: AsyncEngine) -> PgvectorVectorIndex:
    return await prepared(engine)


@pytest.fixture
async def hnsw_index(hnsw_engine: AsyncEngine) -> PgvectorVectorIndex:
    return await prepared(hnsw_engine)


async def hnsw_indexes(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return await connection.scalar(text("SELECT count(*) FROM pg_indexes WHERE indexdef LIKE '%USING hnsw%'"))


async def hnsw_scans(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        await connection.execute(text("SELECT pg_stat_force_next_flush()"))
        scans = text("SELECT coalesce(sum(idx_scan), 0) FROM pg_stat_user_indexes WHERE indexrelname LIKE '%_hnsw_%'")
        return await connection.scalar(scans)


def faces(people: int, each: int, *, seed: int = 0) -> tuple[list[Entry], list[NDArray[np.float32]]]:
    """A gallery of people with several references each, and a probe of every person."""
    centres = vectors(people, seed=seed)
    entries, probes = [], []
    for number, centre in enumerate(centres):
        person = PersonId(new_id())
        *enrolled, probe = around(centre, each + 1, seed=seed + number + 1)
        entries += [entry(vector, GALLERY, person=person) for vector in enrolled]
        probes.append(probe)
    return entries, probes


async def test_a_large_gallery_is_searched_through_its_own_index_and_misses_nobody(
    hnsw_engine: AsyncEngine, hnsw_index: PgvectorVectorIndex
) -> None:
    entries, probes = faces(people=400, each=5)
    strangers = [
        replace(one, gallery=OTHER_GALLERY, reference=entry(axis(0), GALLERY).reference) for one in entries[:500]
    ]
    await hnsw_index.upsert([*entries, *strangers])
    exact = [await hnsw_index.search(embedding(probe), gallery=GALLERY, people=5) for probe in probes]
    assert await hnsw_scans(hnsw_engine) == 0
    await hnsw_index.tidy()
    assert await hnsw_indexes(hnsw_engine) == 1
    found = [await hnsw_index.search(embedding(probe), gallery=GALLERY, people=5) for probe in probes]
    first = [one[0].reference == other[0].reference for one, other in zip(found, exact, strict=True)]
    assert np.mean(first) >= 0.99
    assert all(len({one.person for one in some}) == 5 for some in found)
    async with asyncio.timeout(30.0):  # the server counts scans when their connection has been idle for a moment
        while not await hnsw_scans(hnsw_engine):  # noqa: ASYNC110 - the condition is in PostgreSQL
            await asyncio.sleep(0.05)


async def test_the_plan_uses_the_index_of_the_gallery_however_often_it_runs(hnsw_index: PgvectorVectorIndex) -> None:
    entries, _ = faces(people=200, each=5)
    await hnsw_index.upsert(entries)
    await hnsw_index.tidy()
    async with hnsw_index._connected() as connection:
        for _ in range(10):
            plan = await connection.fetch(  # as the adapter writes it
                f"EXPLAIN SELECT reference_id FROM {hnsw_index._table} WHERE gallery_id = '{GALLERY}'"
                " ORDER BY embedding <=> $1, reference_id LIMIT 64",
                axis(0),
            )
            assert f"{hnsw_index._index_prefix}{GALLERY.hex}" in "\n".join(row[0] for row in plan)


async def test_many_references_of_one_person_do_not_crowd_out_others_in_a_large_gallery(
    hnsw_engine: AsyncEngine, hnsw_index: PgvectorVectorIndex
) -> None:
    crowd = PersonId(new_id())
    crowded = [entry(vector, GALLERY, person=crowd) for vector in around(axis(0), 2000)]
    others = [entry(vector, GALLERY) for vector in around(axis(1), 10)]
    await hnsw_index.upsert([*crowded, *others])
    await hnsw_index.tidy()
    assert await hnsw_indexes(hnsw_engine) == 1
    found = await hnsw_index.search(embedding(axis(0)), gallery=GALLERY, people=11)
    assert found[0].person == crowd
    assert {one.person for one in found[1:]} == {one.person for one in others}


async def test_people_are_found_among_many_that_were_removed(
    hnsw_engine: AsyncEngine, hnsw_index: PgvectorVectorIndex
) -> None:
    gone = [entry(vector, GALLERY) for vector in around(axis(0), 1500)]
    kept = [entry(vector, GALLERY) for vector in around(axis(1), 5)]
    await hnsw_index.upsert([*gone, *kept])
    await hnsw_index.tidy()
    await hnsw_index.remove([one.reference for one in gone])
    assert await hnsw_indexes(hnsw_engine) == 1
    found = await hnsw_index.search(embedding(axis(0)), gallery=GALLERY, people=5)
    assert {one.reference for one in found} == {one.reference for one in kept}


async def test_a_small_gallery_gets_no_index_and_a_shrunken_one_loses_it(
    engine: AsyncEngine, index: PgvectorVectorIndex
) -> None:
    entries = [entry(vector, GALLERY) for vector in vectors(SMALL + 1)]
    await index.upsert(entries[:SMALL])
    await index.tidy()
    assert await hnsw_indexes(engine) == 0
    await index.upsert(entries)
    await (await prepared(engine)).tidy()
    assert await hnsw_indexes(engine) == 1
    await index.remove([one.reference for one in entries[: SMALL // 2]])
    await (await prepared(engine)).tidy()
    assert await hnsw_indexes(engine) == 1
    await index.remove([entries[-1].reference])
    await (await prepared(engine)).tidy()
    assert await hnsw_indexes(engine) == 0


async def test_a_large_gallery_is_cleared_in_stretches(
    engine: AsyncEngine, index: PgvectorVectorIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pgvector, "_CLEARED_AT_ONCE", 4)
    await index.upsert([entry(vector, GALLERY) for vector in vectors(10)])
    kept = entry(axis(0), OTHER_GALLERY)
    await index.upsert([kept])
    async with engine.connect() as connection:
        for statement in (
            "CREATE TABLE cleared (number int)",
            (
                "CREATE FUNCTION counted() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN INSERT INTO cleared SELECT count(*) FROM gone; RETURN NULL; END $$"
            ),
            (
                f"CREATE TRIGGER counting AFTER DELETE ON {index._table} REFERENCING OLD TABLE AS gone"
                " FOR EACH STATEMENT EXECUTE FUNCTION counted()"
            ),
        ):
            await connection.execute(text(statement))
        await index.clear(GALLERY)
        numbers = await connection.scalars(text("SELECT number FROM cleared WHERE number > 0 ORDER BY number"))
        assert list(numbers) == [2, 4, 4]
    assert await walked(index, GALLERY) == []
    assert [one.reference for one in await walked(index, OTHER_GALLERY)] == [kept.reference]


async def test_what_was_dropped_is_gone_and_made_anew_by_who_opens_it(
    engine: AsyncEngine, index: PgvectorVectorIndex
) -> None:
    entries = [entry(vector, gallery) for vector in vectors(2 * SMALL) for gallery in (GALLERY, OTHER_GALLERY)]
    await index.upsert(entries)
    await index.tidy()
    assert await hnsw_indexes(engine) == 1
    for _ in range(2):
        assert await index.drop()
    async with engine.connect() as connection:
        left = "SELECT count(*) FROM pg_class WHERE starts_with(relname, :table)"
        assert await connection.scalar(text(left), {"table": index._table}) == 0
    other = PgvectorVectorIndex(engine, SPACE)
    for refused in (index.upsert(entries), other.search(embedding(axis(0)), gallery=GALLERY, people=1)):
        with pytest.raises(PortRejected, match="missing"):
            await refused
    await index.tidy()
    await prepared(engine)
    assert list(await other.search(embedding(axis(0)), gallery=GALLERY, people=1)) == []


async def test_clearing_a_gallery_drops_its_index(engine: AsyncEngine, index: PgvectorVectorIndex) -> None:
    await index.upsert([entry(vector, GALLERY) for vector in vectors(2 * SMALL)])
    await index.tidy()
    await index.clear(GALLERY)
    assert await hnsw_indexes(engine) == 0
    assert await walked(index, GALLERY) == []


async def test_each_call_builds_one_index_until_none_is_missing(
    engine: AsyncEngine, index: PgvectorVectorIndex
) -> None:
    for gallery in (GALLERY, OTHER_GALLERY):
        await index.upsert([entry(vector, gallery) for vector in vectors(2 * SMALL)])
    for indexes in (1, 2, 2):
        await index.tidy()
        assert await hnsw_indexes(engine) == indexes


async def test_processes_that_tidy_at_once_build_once(engine: AsyncEngine, index: PgvectorVectorIndex) -> None:
    await index.upsert([entry(vector, GALLERY) for vector in vectors(2000)])
    processes = [await prepared(engine) for _ in range(3)]
    await asyncio.gather(*(process.tidy() for process in processes))
    assert await hnsw_indexes(engine) == 1


async def test_what_an_interrupted_build_left_is_replaced(engine: AsyncEngine, index: PgvectorVectorIndex) -> None:
    await index.upsert([entry(vector, GALLERY) for vector in vectors(2 * SMALL)])
    await index.tidy()
    valid = text("SELECT bool_and(indisvalid) FROM pg_index")
    async with engine.connect() as connection:
        await connection.execute(
            text(
                "CREATE FUNCTION broken(uuid) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS"
                " $$ BEGIN RAISE EXCEPTION 'interrupted'; END $$"
            )
        )
        await connection.execute(text(f"DROP INDEX {index._index_prefix}{GALLERY.hex}"))
        with pytest.raises(Exception, match="interrupted"):
            await connection.execute(
                text(
                    f"CREATE INDEX CONCURRENTLY {index._index_prefix}{GALLERY.hex} ON {index._table}"
                    " USING hnsw (embedding vector_cosine_ops) WHERE broken(gallery_id)"
                )
            )
        assert not await connection.scalar(valid)
        await index.tidy()
        assert await connection.scalar(valid)
    assert await hnsw_indexes(engine) == 1


async def test_preparing_at_once_and_again_is_safe(engine: AsyncEngine) -> None:
    await asyncio.gather(*(prepared(engine) for _ in range(4)))
    index = await prepared(engine)
    await index.upsert([entry(axis(0), GALLERY)])
    await index.prepare()
    assert len(await walked(index, GALLERY)) == 1


async def test_a_process_starts_while_another_builds_an_index(
    engine: AsyncEngine, index: PgvectorVectorIndex, tableless_url: str
) -> None:
    await index.upsert([entry(vector, GALLERY) for vector in vectors(2 * SMALL)])
    waits = text("SELECT count(*) FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting%'")
    beside = engine_at(tableless_url, connections=2, timeout=10.0, autocommit=True)
    async with engine.connect() as writer:
        await writer.execution_options(isolation_level="READ COMMITTED")
        await writer.execute(text(f"DELETE FROM {index._table} WHERE person_id IS NULL"))  # a writer, for a build
        building = asyncio.create_task(index.tidy())
        async with beside.connect() as watcher, asyncio.timeout(30.0):
            while not await watcher.scalar(waits):  # noqa: ASYNC110 - the condition is in PostgreSQL
                await asyncio.sleep(0.01)
        other = await prepared(beside)
        await other.upsert([entry(axis(0), OTHER_GALLERY)])
        await other.tidy()
        assert not building.done()
    await building
    assert await hnsw_indexes(engine) == 1
    assert len(await other.search(embedding(axis(0)), gallery=OTHER_GALLERY, people=1)) == 1
    await beside.dispose()


async def test_a_build_outlasts_a_transaction_that_stands_still(
    engine: AsyncEngine, index: PgvectorVectorIndex, tableless_url: str
) -> None:
    await index.upsert([entry(vector, GALLERY) for vector in vectors(2 * SMALL)])
    record = engine_at(tableless_url, connections=1, timeout=10.0)
    async with record.connect() as connection:
        assert await connection.scalar(text("SHOW idle_in_transaction_session_timeout")) == "1min"
        await connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = '1s'"))
        await connection.execute(text("SELECT count(*) FROM pg_class"))  # its snapshot stays until the next one
        async with asyncio.timeout(30.0):
            await index.tidy()
        assert await hnsw_indexes(engine) == 1
        await connection.invalidate()
    await record.dispose()


@pytest.mark.parametrize("missing", ["INDEX {}_person", "TABLE {}", "INDEX {}_gallery"])
async def test_preparing_brings_back_what_is_missing(
    engine: AsyncEngine, index: PgvectorVectorIndex, missing: str
) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("DROP " + missing.format(index._table)))
    await engine.dispose()
    await index.prepare()
    await index.upsert([entry(axis(0), GALLERY)])
    async with engine.connect() as connection:
        assert (
            await connection.scalar(
                text(f"SELECT num_nulls(to_regclass('{index._table}_person'), to_regclass('{index._table}_gallery'))")
            )
            == 0
        )
    assert len(await index.search(embedding(axis(0)), gallery=GALLERY, people=1)) == 1


async def test_half_precision_is_a_table_of_its_own_within_the_precision_that_is_verified(
    engine: AsyncEngine, index: PgvectorVectorIndex
) -> None:
    half = await prepared(engine, half_precision=True)
    written = [entry(vector, GALLERY) for vector in [*vectors(500), axis(0), -axis(1)]]
    await half.upsert(written)
    assert await walked(index, GALLERY) == []
    off = [
        np.abs(one.embedding.vector - other.embedding.vector).max()
        for one, other in zip(await walked(half, GALLERY), written, strict=True)
    ]
    assert 0.0 < max(off) < PRECISION
    await (await prepared(engine, half_precision=True)).prepare()
    assert len(await walked(half, GALLERY)) == len(written)


async def test_half_precision_takes_half_the_room_and_has_an_index_of_its_own(engine: AsyncEngine) -> None:
    sizes = {}
    entries = [entry(vector, GALLERY) for vector in vectors(1000)]
    for half_precision in (False, True):
        index = await prepared(engine, half_precision=half_precision)
        await index.upsert(entries)
        await index.tidy()
        async with engine.connect() as connection:
            sizes[half_precision] = await connection.scalar(
                text(f"SELECT sum(pg_column_size(embedding)) FROM {index._table}")
            )
    assert sizes[True] / sizes[False] == pytest.approx(0.5, abs=0.05)
    assert await hnsw_indexes(engine) == 2


async def test_a_process_that_never_tidies_finds_the_index_that_another_built(
    hnsw_engine: AsyncEngine, hnsw_index: PgvectorVectorIndex
) -> None:
    await hnsw_index.upsert([entry(vector, GALLERY) for vector in vectors(5 * SMALL)])
    await hnsw_index.search(embedding(axis(0)), gallery=GALLERY, people=1)
    await (await prepared(hnsw_engine)).tidy()
    await hnsw_index.search(embedding(axis(0)), gallery=GALLERY, people=1)
    assert GALLERY not in hnsw_index._indexed  # what was seen a moment ago is good for 5 seconds
    hnsw_index._looked_at -= 5.1
    await hnsw_index.search(embedding(axis(0)), gallery=GALLERY, people=1)
    assert GALLERY in hnsw_index._indexed


async def test_many_searches_at_once_look_for_indexes_once(hnsw_engine: AsyncEngine) -> None:
    looks: list[str] = []

    def count(logged: LoggedQuery) -> None:
        looks.extend([logged.query] if "indisvalid FROM" in logged.query else [])

    @event.listens_for(hnsw_engine.sync_engine, "connect")
    def watch(connection: AdaptedConnection, _: object) -> None:
        connection.driver_connection.add_query_logger(count)

    index = await prepared(hnsw_engine)
    for expected in (1, 2):
        index._looked_at -= 5.1
        await asyncio.gather(*(index.search(embedding(axis(0)), gallery=GALLERY, people=1) for _ in range(30)))
        assert len(looks) == expected


async def test_vectors_are_read_as_they_were_written(index: PgvectorVectorIndex) -> None:
    written = [entry(vector, GALLERY) for vector in vectors(20)]
    await index.upsert(written)
    read = {one.reference: one.embedding.vector for one in await walked(index, GALLERY)}
    assert all(np.array_equal(read[one.reference], one.embedding.vector) for one in written)


async def test_a_full_pool_is_busy_and_the_ping_goes_past_it(engine: AsyncEngine, tableless_url: str) -> None:
    pool = engine_at(tableless_url, connections=1, timeout=0.1, autocommit=True)
    index = PgvectorVectorIndex(pool, SPACE, pings=engine)
    await index.prepare()
    async with pool.connect():
        with pytest.raises(PortBusy):
            await index.search(embedding(axis(0)), gallery=GALLERY, people=1)
        await index.ping()
    await pool.dispose()


async def test_spaces_have_tables_of_their_own(engine: AsyncEngine, index: PgvectorVectorIndex) -> None:
    other = PgvectorVectorIndex(engine, replace(SPACE, digest="d1" * 32, dimension=64))
    await other.prepare()
    await index.upsert([entry(axis(0), GALLERY)])
    assert await walked(other, GALLERY) == []


async def test_ping_says_what_is_missing(engine: AsyncEngine, index: PgvectorVectorIndex) -> None:
    await index.ping()
    assert index.name == "vector_index"
    with pytest.raises(PortRejected, match="table"):
        await PgvectorVectorIndex(engine, replace(SPACE, digest="d1" * 32)).ping()


async def test_a_server_that_is_not_there_is_unavailable_and_its_address_unsaid() -> None:
    async with nobody_at_home() as engine:
        index = PgvectorVectorIndex(engine, SPACE)
        for call in (index.ping(), index.prepare(), index.tidy(), index.upsert([entry(axis(0), GALLERY)])):
            with pytest.raises(PortUnavailable) as told:
                await call
            assert told.value.port == "vector_index"
            assert "127.0.0.1" not in told.value.message


async def test_connections_that_the_server_ended_are_replaced(engine: AsyncEngine, index: PgvectorVectorIndex) -> None:
    await index.upsert([entry(axis(0), GALLERY)])
    ours = "datname = current_database() AND usename = current_user"
    others = f"FROM pg_stat_activity WHERE {ours} AND pid <> pg_backend_pid()"
    url = engine.url.render_as_string(hide_password=False)
    ending = engine_at(url, connections=1, timeout=10.0, autocommit=True)
    async with ending.connect() as connection, asyncio.timeout(30.0):
        await connection.execute(text(f"SELECT pg_terminate_backend(pid) {others}"))
        while await connection.scalar(text(f"SELECT count(*) {others}")):  # noqa: ASYNC110 - in PostgreSQL
            await asyncio.sleep(0.01)
    await ending.dispose()
    assert len(await index.search(embedding(axis(0)), gallery=GALLERY, people=1)) == 1
