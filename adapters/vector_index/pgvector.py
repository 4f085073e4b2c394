# ruff: noqa: S608 - what stands in the statements is a digest, a UUID or a number of ours; values are bound

import asyncio
import hashlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, final
from uuid import UUID

import numpy as np
from asyncpg import Connection, InterfaceError, PostgresError, Record
from numpy.typing import NDArray
from pgvector.asyncpg import register_vector
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine

from application.ports.errors import PortBusy, PortRejected, PortUnavailable
from application.ports.ping import Ping
from application.ports.upkeep import Upkeep
from application.ports.vector_index import Droppable, Entry, Neighbour, VectorIndex
from domain.embedding import Embedding, EmbeddingSpace
from domain.enrolment import ReferenceId
from domain.gallery import GalleryId
from domain.person import PersonId

_PORT: Final = "vector_index"

_Vector = NDArray[np.float32]

EXACT_UP_TO: Final = 20_000
"""References of one gallery that are compared one by one.

Measured with 128 dimensions on two busy cores of 2026: 0.2 ms for 1,000, 0.9 ms for 5,000, 1.6 ms for 10,000 and
7.5 ms for 20,000 (95th percentile 11 ms). Twice as many would still end within 25 ms, and never miss anyone.
"""

_GRAPH: Final = "m = 24, ef_construction = 128"
_EF_SEARCH: Final = 200
"""How dense the graph is, and how many candidates a search of it keeps.

Measured on 100,000 people of the `open` pack's space (914 real ones, the others sampled to be like them), of those
whom exact search has first: pgvector's defaults (m 16, 64) with 100 candidates have 94.8 % of them first, with 400
candidates 99.4 %; these have 99.9 % first, at a median of 4.8 ms against 7.7. The build takes four times as long,
96 s against 26, and the index 90 MB against 79.
"""

_BUILD_MEMORY: Final = "512MB"
_BUILD_PATIENCE: Final = 24 * 3600.0
_PING_PATIENCE: Final = 2.0
_INDEXES_KNOWN_FOR: Final = 5.0
"""Seconds after which a search looks again which galleries have an HNSW index: another process may keep them."""
_PAGE: Final = 1000
_CLEARED_AT_ONCE: Final = 10_000
"""Rows of one DELETE: a fraction of a second, where a whole gallery may take longer than a command may."""
_OLDEST: Final = (0, 8)

# Where the candidates are too few the graph is walked further. In strict order pgvector would drop what turns out
# nearer than what it has returned already; so the order is relaxed, and `_approximately` sorts.
_SESSION: Final = f"SET hnsw.ef_search = {_EF_SEARCH}; SET hnsw.iterative_scan = relaxed_order"


@final
class PgvectorVectorIndex(VectorIndex, Droppable, Ping, Upkeep):
    """Vectors in PostgreSQL with pgvector 0.8 or newer: a table for one embedding space.

    A gallery of up to `exact_up_to` references is searched exactly, row by row. For a larger one `tidy` builds an
    HNSW index of its own (`WHERE gallery_id = ...`): one index over all galleries would lose the people of the small
    ones among those of the large. Until it is built, the search stays exact.

    `half_precision` halves the vectors, in the table and in the indexes: 11 significant bits, so a component is off by
    at most 2.5e-4 and a cosine by 5e-4. It is another table, filled by a rebuild; the one of full precision stays.
    Measured on 20,000 made-up people of 128 dimensions: the same person first for 300 of 300 probes, exactly and by
    graph; the table 6.8 MB against 12.6, the graph 13.7 against 18.9; exact search 4.9 ms against 9.3, by graph 2.6
    against 3.3.

    Args:
        engine: AUTOCOMMIT, and it replaces connections that the server has closed (`adapters.persistence.database`).
        space: whose vectors these are.
        exact_up_to: references of a gallery.
        half_precision: keep `halfvec` instead of `vector`.
        pings: a pool of the same server that searches cannot exhaust, so that busy does not read as gone; None:
            there is no other.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        space: EmbeddingSpace,
        *,
        exact_up_to: int = EXACT_UP_TO,
        half_precision: bool = False,
        pings: AsyncEngine | None = None,
    ) -> None:
        self._engine = engine
        self._pings = engine if pings is None else pings
        self._space = space
        self._exact_up_to = exact_up_to
        self._type = "halfvec" if half_precision else "vector"
        # Of a name and locks of its own, for during a change from one to the other both are written to.
        digest = hashlib.sha256((f"{space.id} halfvec" if half_precision else space.id).encode()).digest()
        self._table = f"{self._type}s_{digest[:8].hex()}"
        # Two, for a build holds its own for minutes, and no start may wait for it.
        self._build_lock = int.from_bytes(digest[:8], "big", signed=True)
        self._prepare_lock = int.from_bytes(digest[8:16], "big", signed=True)
        # What is known of the indexes is a hint: without one a search is exact, and with a wrong one too.
        self._indexed: frozenset[GalleryId] = frozenset()
        self._looked_at = -math.inf
        self._counted_at: int | None = None

    @property
    def name(self) -> str:
        return _PORT

    async def prepare(self) -> None:
        """Make the table where it is missing; at every start, safe beside other processes.

        Where it is there nothing is locked and nobody waited for, so a process starts while another builds an index.
        Raises `PortRejected` where the server has no pgvector, or one before 0.8, and `PortUnavailable`.
        """
        async with self._driven(self._engine) as connection:
            if not await self._is_prepared(connection):
                async with connection.transaction():
                    await connection.execute("SELECT pg_advisory_xact_lock($1)", self._prepare_lock)
                    await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
                    if not await self._is_prepared(connection):
                        await connection.execute(self._definition())

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
        vector = probe.vector
        async with self._connected() as connection:
            if among is None:
                best = await self._nearest_people(connection, vector, gallery, people)
            else:
                best = await self._best_of_each(connection, vector, gallery, people, among)
            if per_person > 1:
                these = [row["person_id"] for row in best]
                best = await self._best_of_these(connection, vector, gallery, these, per_person)
        return [_to_neighbour(row) for row in best]

    async def upsert(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._space.require(entry.embedding)
        last = {entry.reference: entry for entry in entries}
        async with self._connected() as connection:
            # One implicit transaction, and rows in one order, so that two writers cannot lock in a circle.
            # COPY through a temporary table was no faster from 1,000 to 20,000 rows.
            await connection.executemany(
                f"""INSERT INTO {self._table} (reference_id, person_id, gallery_id, embedding)
                    VALUES ($1, $2, $3, $4) ON CONFLICT (reference_id) DO UPDATE
                    SET person_id = excluded.person_id, gallery_id = excluded.gallery_id,
                        embedding = excluded.embedding""",
                [
                    (reference, entry.person, entry.gallery, entry.embedding.vector)
                    for reference, entry in sorted(last.items())
                ],
            )

    async def remove(self, references: Sequence[ReferenceId]) -> None:
        async with self._connected() as connection:
            await connection.execute(
                f"""WITH these AS (SELECT reference_id FROM {self._table} WHERE reference_id = ANY($1)
                                   ORDER BY reference_id FOR UPDATE)
                    DELETE FROM {self._table} USING these WHERE {self._table}.reference_id = these.reference_id""",
                list(references),
            )

    async def entries(self, gallery: GalleryId) -> AsyncIterator[Entry]:
        begin, after = ">=", UUID(int=0)
        while True:
            async with self._connected() as connection:
                page = await connection.fetch(
                    f"""SELECT reference_id, person_id, embedding FROM {self._table}
                        WHERE gallery_id = $1 AND reference_id {begin} $2 ORDER BY reference_id LIMIT {_PAGE}""",
                    gallery,
                    after,
                )
            for row in page:
                yield self._to_entry(row, gallery)
            if len(page) < _PAGE:
                return
            begin, after = ">", page[-1]["reference_id"]

    async def clear(self, gallery: GalleryId) -> None:
        async with self._connected() as connection:
            while await self._cleared(connection, gallery):
                pass
            async with self._alone(connection) as alone:
                if alone:  # else `tidy` is at work, and will find the index without its gallery
                    await self._drop(connection, gallery)

    async def drop(self) -> bool:
        async with self._driven(self._engine) as connection:
            # It waits for searches, and for an index that is being built.
            await connection.execute(f"DROP TABLE IF EXISTS {self._table}", timeout=_BUILD_PATIENCE)
        self._indexed, self._counted_at = frozenset(), None
        return True

    async def ping(self) -> None:
        with translated():
            async with asyncio.timeout(_PING_PATIENCE), self._driven(self._pings) as connection:
                await connection.fetchval(f"SELECT EXISTS (SELECT FROM {self._table})")

    async def tidy(self) -> None:
        """Drop indexes that are half built or no longer worth it, and build one that is missing.

        Half the size at which a gallery got an index is where it loses it. Other galleries wait for the next call.
        """
        async with self._connected() as connection:
            if not await self._is_there(connection):  # dropped, and not opened since
                return
            async with self._alone(connection) as alone:
                if alone:
                    await self._keep_indexes(connection)
            await self._look(connection)

    async def _cleared(self, connection: Connection, gallery: GalleryId) -> bool:
        """Remove some rows of a gallery, and say whether there may be more."""
        done: str = await connection.execute(
            f"""WITH these AS (SELECT reference_id FROM {self._table} WHERE gallery_id = $1
                               ORDER BY reference_id LIMIT {_CLEARED_AT_ONCE} FOR UPDATE)
                DELETE FROM {self._table} USING these WHERE {self._table}.reference_id = these.reference_id""",
            gallery,
        )
        return done != "DELETE 0"

    # ---------------------------------------------------------------------------------------------- searching

    async def _nearest_people(
        self, connection: Connection, vector: _Vector, gallery: GalleryId, people: int
    ) -> Sequence[Record]:
        """The best reference of each of the nearest people.

        The references of one person may fill any number of rows. So more rows are looked at where the first ones
        belong to too few people, and in the end the best of every person.
        """
        approximate = gallery in await self._with_index(connection)
        search = self._approximately if approximate else self._exactly
        first = 16 * -(-max(64, 4 * people) // 16)
        for rows in (first, 8 * first):
            nearest = await search(connection, vector, gallery, rows)
            best = _first_of_each(nearest)
            if len(best) >= people or (len(nearest) < rows and not approximate):
                return best[:people]
        return await self._best_of_each(connection, vector, gallery, people, None)

    async def _exactly(
        self, connection: Connection, vector: _Vector, gallery: GalleryId, rows: int
    ) -> Sequence[Record]:
        return await _rows(
            connection,
            f"SELECT * FROM ({self._compared()}) AS compared ORDER BY distance, reference_id LIMIT {rows}",
            gallery,
            vector,
        )

    async def _approximately(
        self, connection: Connection, vector: _Vector, gallery: GalleryId, rows: int
    ) -> Sequence[Record]:
        # The planner takes a partial index only where it reads the condition word for word, and sees how few rows
        # are wanted: both stand in the text (a UUID and a number of ours), so a generic plan has them too.
        found = await connection.fetch(
            f"""SELECT reference_id, person_id, embedding <=> $1 AS distance FROM {self._table}
                WHERE gallery_id = '{gallery}' ORDER BY embedding <=> $1, reference_id LIMIT {rows}""",
            vector,
        )
        return sorted(found, key=lambda row: (row["distance"], row["reference_id"]))

    async def _best_of_each(
        self,
        connection: Connection,
        vector: _Vector,
        gallery: GalleryId,
        people: int,
        among: Sequence[PersonId] | None,
    ) -> Sequence[Record]:
        return await _rows(
            connection,
            f"""SELECT * FROM (SELECT DISTINCT ON (person_id) * FROM ({self._compared(among)}) AS compared
                               ORDER BY person_id, distance, reference_id) AS best
                ORDER BY distance, reference_id LIMIT {people}""",
            gallery,
            vector,
            *([] if among is None else [list(among)]),
        )

    async def _best_of_these(
        self,
        connection: Connection,
        vector: _Vector,
        gallery: GalleryId,
        people: Sequence[PersonId],
        each: int,
    ) -> Sequence[Record]:
        return await _rows(
            connection,
            f"""SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY person_id ORDER BY distance, reference_id)
                               AS place FROM ({self._compared(people)}) AS compared) AS placed
                WHERE place <= {each} ORDER BY distance, reference_id""",
            gallery,
            vector,
            list(people),
        )

    def _compared(self, among: Sequence[PersonId] | None = None) -> str:
        # The vector stands in a query of its own, or it would be read anew for every row. OFFSET 0 keeps the planner
        # from taking the comparison out of here, where an HNSW index could answer it approximately.
        only = "" if among is None else "AND person_id = ANY($3)"
        return f"""SELECT reference_id, person_id, embedding <=> (SELECT $2::{self._type}) AS distance
                   FROM {self._table} WHERE gallery_id = $1 {only} OFFSET 0"""

    # --------------------------------------------------------------------------------------------- the indexes

    async def _with_index(self, connection: Connection) -> frozenset[GalleryId]:
        if time.monotonic() - self._looked_at > _INDEXES_KNOWN_FOR:
            await self._look(connection)
        return self._indexed

    async def _look(self, connection: Connection) -> None:
        # First the time, so that of many searches at once one looks, and the others go by what was known before.
        self._looked_at = time.monotonic()
        self._indexed = frozenset(gallery for gallery, valid in (await self._indexes(connection)).items() if valid)

    async def _indexes(self, connection: Connection) -> dict[GalleryId, bool]:
        """Which galleries have an HNSW index, and whether it is complete."""
        prefix = self._index_prefix
        found = await connection.fetch(
            """SELECT relname, indisvalid FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
               WHERE indrelid = $1::text::regclass AND starts_with(relname, $2)""",
            self._table,
            prefix,
        )
        return {GalleryId(UUID(row["relname"].removeprefix(prefix))): row["indisvalid"] for row in found}

    async def _keep_indexes(self, connection: Connection) -> None:
        indexes = await self._indexes(connection)
        for gallery in [gallery for gallery, valid in indexes.items() if not valid]:
            await self._drop(connection, gallery)
            del indexes[gallery]
            self._counted_at = None
        written = await self._written(connection)
        if self._counted_at is not None and abs(written - self._counted_at) < self._exact_up_to // 10:
            return
        sizes = await self._sizes(connection)
        for gallery in indexes.keys() - sizes.keys():
            await self._drop(connection, gallery)
        missing = [gallery for gallery, size in sizes.items() if size > self._exact_up_to and gallery not in indexes]
        if missing:
            await self._build(connection, missing[0])  # the slowest to search
        self._counted_at = None if len(missing) > 1 else written

    async def _written(self, connection: Connection) -> int:
        """How much was ever written to the table: counting again is for when that has grown."""
        written: int | None = await connection.fetchval(
            "SELECT n_tup_ins + n_tup_del FROM pg_stat_user_tables WHERE relid = $1::text::regclass", self._table
        )
        return written or 0

    async def _sizes(self, connection: Connection) -> dict[GalleryId, int]:
        """References of the galleries that have more than half of what makes an index worth its keep, largest first."""
        found = await connection.fetch(
            f"SELECT gallery_id, count(*) AS size FROM {self._table} GROUP BY gallery_id HAVING count(*) > $1"
            " ORDER BY size DESC, gallery_id",
            self._exact_up_to // 2,
        )
        return {GalleryId(row["gallery_id"]): row["size"] for row in found}

    async def _build(self, connection: Connection, gallery: GalleryId) -> None:
        try:
            await connection.execute(f"SET maintenance_work_mem = '{_BUILD_MEMORY}'")
            await connection.execute(
                f"CREATE INDEX CONCURRENTLY {self._index_prefix}{gallery.hex} ON {self._table}"
                f" USING hnsw (embedding {self._type}_cosine_ops) WITH ({_GRAPH}) WHERE gallery_id = '{gallery}'",
                timeout=_BUILD_PATIENCE,
            )
            await connection.execute(f"ANALYZE {self._table}", timeout=_BUILD_PATIENCE)
        finally:
            if not connection.is_closed():
                await connection.execute("RESET maintenance_work_mem")

    async def _drop(self, connection: Connection, gallery: GalleryId) -> None:
        self._indexed -= {gallery}
        await connection.execute(
            f"DROP INDEX CONCURRENTLY IF EXISTS {self._index_prefix}{gallery.hex}", timeout=_BUILD_PATIENCE
        )

    @property
    def _index_prefix(self) -> str:
        return f"{self._table}_hnsw_"  # with a UUID's 32 digits no more than the 63 characters that a name may have

    async def _is_there(self, connection: Connection) -> bool:
        there: bool = await connection.fetchval("SELECT to_regclass($1::text) IS NOT NULL", self._table)
        return there

    async def _is_prepared(self, connection: Connection) -> bool:
        """Look, without a lock, whether all of `_definition` is there. Its last statement is the comment."""
        found = await connection.fetchrow(
            """SELECT (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS version,
                      obj_description(to_regclass($1::text), 'pg_class') AS space,
                      num_nulls(to_regclass($1 || '_gallery'), to_regclass($1 || '_person')) AS missing""",
            self._table,
        )
        version = found["version"]
        if version is not None and tuple(map(int, version.split(".")[:2])) < _OLDEST:
            raise PortRejected(_PORT, f"pgvector 0.8 is needed, and this server has {version}")
        return version is not None and found["space"] == self._space.id and not found["missing"]

    def _definition(self) -> str:
        # STORAGE PLAIN: above 2 kB (500 dimensions, 1,000 of halfvec) vectors would move out of their rows, where
        # comparing them one by one takes several times as long. parallel_workers: a search that takes all cores helps
        # nobody beside others.
        return f"""
            CREATE TABLE IF NOT EXISTS {self._table} (
                reference_id uuid PRIMARY KEY,
                person_id uuid NOT NULL,
                gallery_id uuid NOT NULL,
                embedding {self._type}({self._space.dimension}) STORAGE PLAIN NOT NULL
            ) WITH (parallel_workers = 0);
            CREATE INDEX IF NOT EXISTS {self._table}_gallery ON {self._table} (gallery_id, reference_id);
            CREATE INDEX IF NOT EXISTS {self._table}_person ON {self._table} (person_id);
            COMMENT ON TABLE {self._table} IS '{self._space.id.replace("'", "''")}';
        """

    # --------------------------------------------------------------------------------------------- connections

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        """Lend a connection that carries vectors in binary form and searches as measured."""
        async with self._driven(self._engine, ready=_made_ready) as connection:
            yield connection

    @asynccontextmanager
    async def _driven(
        self, pool: AsyncEngine, *, ready: Callable[[Connection], Awaitable[None]] | None = None
    ) -> AsyncIterator[Connection]:
        """Lend a connection as the driver has it, `ready` done to it once."""
        with translated():
            async with pool.connect() as pooled:
                raw = await pooled.get_raw_connection()
                connection: Any = raw.driver_connection
                if ready is not None and ready not in raw.info:
                    await ready(connection)
                    raw.info[ready] = True
                yield connection

    @asynccontextmanager
    async def _alone(self, connection: Connection) -> AsyncIterator[bool]:
        """Whether no other process builds or drops indexes of this table, and none does meanwhile."""
        alone: bool = await connection.fetchval("SELECT pg_try_advisory_lock($1)", self._build_lock)
        try:
            yield alone
        finally:
            if alone and not connection.is_closed():
                await connection.execute("SELECT pg_advisory_unlock($1)", self._build_lock)

    def _to_entry(self, row: Record, gallery: GalleryId) -> Entry:
        return Entry(
            reference=ReferenceId(row["reference_id"]),
            person=PersonId(row["person_id"]),
            gallery=gallery,
            embedding=Embedding(row["embedding"].to_numpy(), self._space.id),
        )


@contextmanager
def translated() -> Iterator[None]:
    """Let a server that is gone or does not answer end as `PortUnavailable`, free of addresses and values.

    A pool without a free connection is `PortBusy`: the server is there.
    """
    try:
        yield
    except (DBAPIError, PostgresError) as error:
        raise _meaning(error) or error from error
    except PoolTimeout as error:
        raise PortBusy(_PORT, "all connections are in use") from error
    except TimeoutError as error:
        raise PortUnavailable(_PORT, "it did not answer in time") from error
    except (OSError, InterfaceError) as error:
        raise PortUnavailable(_PORT, "it cannot be reached") from error


_REFUSED: Final = {
    "28": "the server refuses the user name or password",
    "3D": "there is no such database",
    "0A": "the server does not have the extension pgvector",
    "42501": "a right is missing; where pgvector is not there yet, an administrator runs CREATE EXTENSION vector",
    "42P01": "the table of this embedding space is missing; it is made at the next start, and filled by a rebuild",
}
_PASSING: Final = {
    "08": "the connection was lost",
    "40": "two transactions stood in each other's way",
    "55000": "the database lets nobody in at this moment",
    "53": "the server has no room for another connection, or for more data",
    "55P03": "a lock was not to be had in time",
    "57": "the server is starting, shutting down, or ended the query",
    "58": "the server's disk or operating system failed",
}


def _meaning(error: DBAPIError | PostgresError) -> Exception | None:
    cause = error.driver_exception if isinstance(error, DBAPIError) else error
    state = getattr(cause, "sqlstate", None) or ""
    for known, reason in _REFUSED.items():
        if state.startswith(known):
            return PortRejected(_PORT, reason)
    for known, reason in _PASSING.items():
        if state.startswith(known):
            return PortUnavailable(_PORT, reason)
    if isinstance(cause, InterfaceError) or (isinstance(error, DBAPIError) and error.connection_invalidated):
        return PortUnavailable(_PORT, "the connection was lost")
    return None


async def _made_ready(connection: Connection) -> None:
    await connection.execute(_SESSION)
    schema = await connection.fetchval(
        "SELECT nspname FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace WHERE extname = 'vector'"
    )
    if schema is None:
        raise PortRejected(_PORT, _REFUSED["0A"])
    await register_vector(connection, schema=schema)


async def _rows(connection: Connection, query: str, *values: object) -> Sequence[Record]:
    found: list[Record] = await connection.fetch(query, *values)
    return found


def _first_of_each(rows: Sequence[Record]) -> list[Any]:
    best: dict[UUID, Record] = {}
    for row in rows:
        best.setdefault(row["person_id"], row)
    return list(best.values())


def _to_neighbour(row: Record) -> Neighbour:
    return Neighbour(
        reference=ReferenceId(row["reference_id"]), person=PersonId(row["person_id"]), similarity=1.0 - row["distance"]
    )
