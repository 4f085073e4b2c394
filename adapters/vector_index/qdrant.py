import asyncio
import hashlib
import math
import sqlite3
import warnings
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from itertools import pairwise
from json import JSONDecodeError
from pathlib import Path
from typing import Final, TypeVar, final
from uuid import UUID

import httpx
import numpy as np
from pydantic import ValidationError
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from application.ports.errors import PortBusy, PortRejected, PortUnavailable
from application.ports.ping import Ping
from application.ports.vector_index import Droppable, Entry, Neighbour, VectorIndex
from domain.embedding import Embedding, EmbeddingSpace
from domain.enrolment import ReferenceId
from domain.gallery import GalleryId
from domain.person import PersonId
from domain.similarity import similarities

_PORT: Final = "vector_index"
_T = TypeVar("_T")

EXACT_UP_TO: Final = 20_000
"""References of one gallery in one segment that the server compares one by one; as pgvector's, which was measured."""

_GRAPH: Final = (24, 128)
_EF_SEARCH: Final = 200
"""Links a point and candidates of the build, and candidates of a search.

Those that were measured for pgvector's graph, which is built in the same way. Not measured here: qdrant-client's local
mode has no graph.
"""

_OLDEST: Final = (1, 11)
"""The first server with tenant indexes and UUID indexes; both stand in its release notes."""

_SAME: Final = 1e-6
"""Similarities so close may be one: a float32 sum of products errs by about 1e-7, by another amount on another node."""

_NUMBERS_AT_ONCE: Final = 1 << 16
"""Components in one request or page: 1.3 MB of JSON, 12 ms of this process's time."""
_LOCAL_AT_ONCE: Final = 8
"""Points in one write of local mode: SQLite commits each one, on the event loop, in 1 ms to 25 ms as the disk is."""
_IDS_AT_ONCE: Final = 10_000

_PING_PATIENCE: Final = 2.0
# A search never queues for a connection, so no ping queues behind searches. Qdrant's HTTP server (actix) closes
# connections that are idle for 5 s; those given up before that are never written to while they close.
_CONNECTIONS: Final = httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=3.0)


@asynccontextmanager
async def open_qdrant(
    space: EmbeddingSpace,
    *,
    url: str | None = None,
    api_key: str | None = None,
    path: Path | None = None,
    shards: int | None = None,
    replicas: int | None = None,
    write_consistency: int | None = None,
    timeout: float = 10.0,  # noqa: ASYNC109 - of each later call, not of this one
) -> AsyncIterator["QdrantVectorIndex"]:
    """Open the index of one space on a server (`url`), in a folder (`path`), or else in memory, prepared.

    A folder belongs to one process, which compares all vectors one by one, commits each by itself and does both on the
    event loop: for trying out, not for service. Above 20,000 references the library says so in a `UserWarning`, and in
    another one that a key goes over plain HTTP. There a search took 0.7 s on a busy core of 2026 (128 dimensions).

    Args:
        space: whose vectors these are.
        url: `https://host:6333`, and a path where the server stands behind one.
        api_key: with the right to write, and to make collections where the space's is not there yet.
        path: made where it is missing, for its owner alone.
        shards: of a collection that is made now; None: as the server is set.
        replicas: the same.
        write_consistency: replicas that must acknowledge a write, of a collection that is made now.
        timeout: seconds for each call.

    Raises:
        PortRejected: an address that is none, a folder in use or not to be written, and what `prepare` refuses.
        PortUnavailable: the server cannot be reached.
    """
    if path is not None and url is None:
        client = _of_folder(path)
    elif url is not None and path is None:
        client = _of_server(url, api_key, timeout)
    elif url is None:
        client = AsyncQdrantClient(location=":memory:")
    else:
        raise PortRejected(_PORT, "Qdrant is on a server or in a folder, not both")
    try:
        index = QdrantVectorIndex(
            client,
            space,
            local=url is None,
            shards=shards,
            replicas=replicas,
            write_consistency=write_consistency,
            timeout=timeout,
        )
        await index.prepare()
        yield index
    finally:
        await client.close()


@final
class QdrantVectorIndex(VectorIndex, Droppable, Ping):
    """Vectors in Qdrant 1.11 or newer: a collection for one embedding space, its tenants the galleries.

    There is no graph over all galleries: one of its own for each that is larger than `EXACT_UP_TO`, or the people of
    small galleries would be lost among those of the large. Smaller ones the server searches exactly.

    Not by Qdrant's grouping: it gives up after five rounds, so one person with thousands of near references would
    crowd out others, and it picks any of several equals. The rounds of `_best` end when all people are there.

    A write is sent in parts, each acknowledged when a search sees it. Where a later part fails, the earlier ones are
    there: writes are idempotent, and whoever was told of the failure repeats all of it.

    Args:
        client: of a server, or of local mode.
        space: whose vectors these are.
        local: whether it is local mode, which has no indexes, no parameters of search, and commits point by point.
        shards: of a collection that `prepare` makes.
        replicas: the same.
        write_consistency: the same.
        timeout: seconds for each call; a write of several parts has as much for each.
    """

    def __init__(
        self,
        client: AsyncQdrantClient,
        space: EmbeddingSpace,
        *,
        local: bool = False,
        shards: int | None = None,
        replicas: int | None = None,
        write_consistency: int | None = None,
        timeout: float = 10.0,
    ) -> None:
        self._client = client
        self._space = space
        self._local = local
        self._shards = shards
        self._replicas = replicas
        self._write_consistency = write_consistency
        self._timeout = timeout
        self._collection = f"facepass_{hashlib.sha256(space.id.encode()).digest()[:8].hex()}"
        self._page = max(1, min(1000, _NUMBERS_AT_ONCE // space.dimension))
        self._part = _LOCAL_AT_ONCE if local else self._page

    @property
    def name(self) -> str:
        return _PORT

    async def prepare(self) -> None:
        """Make the collection and its indexes where they are missing; at every start, safe beside other processes.

        Raises `PortRejected` for a server that is too old, a key without the right, or a collection of this name with
        other vectors, and `PortUnavailable`.
        """
        async with self._answering(self._timeout):
            _require_new_enough(await self._client.info())
            if not await self._client.collection_exists(self._collection):
                await self._make()
            made = await self._client.get_collection(self._collection)
            self._require_fitting(made.config.params.vectors)
            if not self._local:
                await self._make_payload_indexes(made.payload_schema)

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
        if among is not None and not among:
            return []
        within: list[models.Condition] = [_is("gallery", gallery)]
        if among is not None:
            within.append(_is_any("person", among))
        async with self._answering(self._timeout):
            best = await self._best(probe, within, people=people, each=1)
            if per_person > 1 and best:
                these = [one.person for one in best]
                best = await self._best(
                    probe, [*within, _is_any("person", these)], people=len(these), each=per_person, exact=True
                )
        return best

    async def upsert(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._space.require(entry.embedding)
        last = {entry.reference: entry for entry in entries}
        for part in _parts(list(last.values()), self._part):
            async with self._answering(self._timeout):
                await self._client.upsert(
                    self._collection,
                    [_to_point(entry) for entry in part],
                    wait=True,
                    # Two nodes that write one reference end alike on all replicas.
                    ordering=models.WriteOrdering.MEDIUM,
                )
            await asyncio.sleep(0)  # local mode never gives way by itself

    async def remove(self, references: Sequence[ReferenceId]) -> None:
        for part in _parts(list(set(references)), _LOCAL_AT_ONCE if self._local else _IDS_AT_ONCE):
            async with self._answering(self._timeout):
                await self._client.delete(
                    self._collection,
                    points_selector=models.PointIdsList(points=[str(one) for one in part]),
                    wait=True,
                    ordering=models.WriteOrdering.MEDIUM,
                )
            await asyncio.sleep(0)

    async def entries(self, gallery: GalleryId) -> AsyncIterator[Entry]:
        # By id is the order of Qdrant's scrolling, over all shards: for UUIDs that of their numbers.
        page: int | str | UUID | None = None
        while True:
            async with self._answering(self._timeout):
                records, page = await self._client.scroll(
                    self._collection,
                    scroll_filter=models.Filter(must=[_is("gallery", gallery)]),
                    limit=self._page,
                    offset=page,
                    with_payload=["person"],
                    with_vectors=True,
                )
            for record in records:
                yield self._to_entry(record, gallery)
            if page is None:
                return

    async def clear(self, gallery: GalleryId) -> None:
        # In stretches: what removes a large gallery at once takes longer than a call may.
        page: int | str | UUID | None = None
        while True:
            async with self._answering(self._timeout):
                records, page = await self._client.scroll(
                    self._collection,
                    scroll_filter=models.Filter(must=[_is("gallery", gallery)]),
                    limit=_IDS_AT_ONCE,
                    offset=page,
                    with_payload=False,
                    with_vectors=False,
                )
            await self.remove([_to_reference(record) for record in records])
            if page is None:
                return

    async def drop(self) -> bool:
        async with self._answering(self._timeout):
            await self._client.delete_collection(self._collection)
        return True

    async def ping(self) -> None:
        async with self._answering(_PING_PATIENCE):
            if not await self._client.collection_exists(self._collection):
                raise PortRejected(_PORT, _REFUSED[404])

    # ---------------------------------------------------------------------------------------------- searching

    async def _best(
        self,
        probe: Embedding,
        within: list[models.Condition],
        *,
        people: int,
        each: int,
        exact: bool = False,
    ) -> list[Neighbour]:
        """The best `each` references of the nearest `people`, ties as the port has them.

        A round that is cut off may have cut equals apart, so what equals its last point is left to the next round,
        which looks further and past the people that are complete. After the first one rounds are exact: a graph may
        end early, and what it did not find is not proof that there is nothing.
        """
        found: dict[PersonId, dict[ReferenceId, Neighbour]] = defaultdict(dict)
        rows = max(64, 4 * people * each)
        while True:
            complete = [person for person, theirs in found.items() if len(theirs) >= each]
            if len(complete) >= people:
                break
            points = await self._nearest(probe, within, complete, rows, exact=exact)
            ended = len(points) < rows and (exact or self._local)
            floor = -math.inf if ended or not points else points[-1].score + _SAME
            for one in await self._ordered(probe, [point for point in points if point.score > floor]):
                theirs = found[one.person]
                if len(theirs) < each:
                    theirs[one.reference] = one
            if ended:
                break
            rows, exact = 4 * rows, True
        best = sorted((min(theirs.values(), key=_rank) for theirs in found.values()), key=_rank)[:people]
        return sorted((one for first in best for one in found[first.person].values()), key=_rank)

    async def _nearest(
        self,
        probe: Embedding,
        within: list[models.Condition],
        but_not: Sequence[PersonId],
        rows: int,
        *,
        exact: bool,
    ) -> Sequence[models.ScoredPoint]:
        wanted = models.SearchParams(exact=True) if exact else models.SearchParams(hnsw_ef=_EF_SEARCH)
        found = await self._client.query_points(
            self._collection,
            query=probe.vector.tolist(),
            query_filter=models.Filter(must=within, must_not=[_is_any("person", but_not)] if but_not else None),
            search_params=None if self._local else wanted,
            limit=rows,
            with_payload=["person"],
        )
        return found.points

    async def _ordered(self, probe: Embedding, points: Sequence[models.ScoredPoint]) -> list[Neighbour]:
        """Best first; what cannot be told apart by the server's similarity is told apart by the vectors themselves."""
        neighbours = [_to_neighbour(point) for point in points]
        close = {
            reference
            for one, other in pairwise(neighbours)
            if one.similarity - other.similarity <= _SAME
            for reference in (one.reference, other.reference)
        }
        if close:
            cosines = await self._cosines(probe, close)
            neighbours = [replace(one, similarity=cosines.get(one.reference, one.similarity)) for one in neighbours]
        return sorted(neighbours, key=_rank)

    async def _cosines(self, probe: Embedding, references: Collection[ReferenceId]) -> dict[ReferenceId, float]:
        records = await self._client.retrieve(
            self._collection, [str(one) for one in references], with_payload=False, with_vectors=True
        )
        cosines = similarities(probe, [self._to_embedding(record) for record in records])
        return {_to_reference(record): float(cosine) for record, cosine in zip(records, cosines, strict=True)}

    # ------------------------------------------------------------------------------------------- the collection

    async def _make(self) -> None:
        links, candidates = _GRAPH
        try:
            await self._client.create_collection(
                self._collection,
                vectors_config=models.VectorParams(size=self._space.dimension, distance=models.Distance.COSINE),
                hnsw_config=models.HnswConfigDiff(
                    m=0,
                    payload_m=links,
                    ef_construct=candidates,
                    full_scan_threshold=math.ceil(EXACT_UP_TO * self._space.dimension * 4 / 1024),  # kB of float32
                ),
                shard_number=self._shards,
                replication_factor=self._replicas,
                write_consistency_factor=self._write_consistency,
            )
        except UnexpectedResponse as error:
            if error.status_code != 409:  # noqa: PLR2004 - conflict: another process made it meanwhile
                raise

    async def _make_payload_indexes(self, made: Collection[str]) -> None:
        for field, tenant in (("gallery", True), ("person", None)):
            if field not in made:
                await self._client.create_payload_index(
                    self._collection,
                    field,
                    field_schema=models.UuidIndexParams(type=models.UuidIndexType.UUID, is_tenant=tenant),
                    wait=True,
                )

    def _require_fitting(self, made: object) -> None:
        ours, cosine = self._space.dimension, models.Distance.COSINE
        if not isinstance(made, models.VectorParams) or (made.size, made.distance) != (ours, cosine):
            raise PortRejected(
                _PORT,
                f"the collection {self._collection} is not one of {ours} dimensions compared by cosine; "
                "somebody else made it, and it has to go before this embedding space can have it",
            )

    @asynccontextmanager
    async def _answering(self, patience: float) -> AsyncIterator[None]:
        """Bound the whole block: the client's own timeout begins anew with every byte."""
        with translated():
            async with asyncio.timeout(patience):
                yield

    def _to_entry(self, record: models.Record, gallery: GalleryId) -> Entry:
        return Entry(
            reference=_to_reference(record),
            person=_to_person(record),
            gallery=gallery,
            embedding=self._to_embedding(record),
        )

    def _to_embedding(self, record: models.Record) -> Embedding:
        return Embedding(np.asarray(record.vector, dtype=np.float32), self._space.id)


@contextmanager
def translated() -> Iterator[None]:
    """Let a server that is gone or does not answer end as `PortUnavailable`, free of addresses and values."""
    try:
        yield
    except ResourceExhaustedResponse as error:
        raise PortBusy(_PORT, _BUSY, retry_after=float(error.retry_after_s)) from error
    except UnexpectedResponse as error:
        raise _meaning(error.status_code or 0) from error
    except ResponseHandlingException as error:
        raise _cause(error.source) from error
    except JSONDecodeError as error:
        raise PortRejected(_PORT, _NO_QDRANT) from error
    except TimeoutError as error:
        raise PortUnavailable(_PORT, "it did not answer in time") from error
    except (OSError, sqlite3.Error) as error:  # of local mode
        raise PortUnavailable(_PORT, "its folder cannot be read or written") from error


_BUSY: Final = "the server limits how often it may be asked"
_NO_QDRANT: Final = "what answers there is no Qdrant server"
_REFUSED: Final = {
    401: "the server refuses the API key",
    403: "the server refuses the API key, or the key lacks a right",
    404: "the collection of this embedding space is missing; it is made at the next start, and filled by a rebuild",
    413: "the server takes no requests of this size",
}


def _meaning(status: int) -> Exception:
    if status == 429:  # noqa: PLR2004 - too many requests
        return PortBusy(_PORT, _BUSY)
    if status == 408 or status >= 500:  # noqa: PLR2004 - request timeout, and the server's own errors
        return PortUnavailable(_PORT, f"the server failed (status {status})")
    return PortRejected(_PORT, _REFUSED.get(status, f"the server refused the request (status {status})"))


def _cause(source: Exception) -> Exception:
    if isinstance(source, httpx.TimeoutException):
        return PortUnavailable(_PORT, "it did not answer in time")
    if isinstance(source, ValidationError):
        return PortRejected(_PORT, _NO_QDRANT)
    return PortUnavailable(_PORT, "it cannot be reached")


def _of_server(url: str, api_key: str | None, timeout: float) -> AsyncQdrantClient:
    try:
        return AsyncQdrantClient(
            url=url,
            api_key=api_key,
            timeout=math.ceil(timeout),
            limits=_CONNECTIONS,
            check_compatibility=False,  # it asks in a thread and warns; `prepare` asks and refuses
        )
    except ValueError as error:
        raise PortRejected(_PORT, "the URL is not that of an HTTP server") from error


def _of_folder(path: Path) -> AsyncQdrantClient:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with warnings.catch_warnings():
            # Where the folder is taken, the library leaves its lock's file to the garbage collector, which warns.
            warnings.simplefilter("ignore", ResourceWarning)
            try:
                return AsyncQdrantClient(path=str(path))
            except RuntimeError:
                pass
    except OSError as error:
        raise PortRejected(_PORT, "Qdrant's folder cannot be made, read or written") from error
    raise PortRejected(
        _PORT, "another process has opened Qdrant's folder; local mode is for one process, a server for several"
    )


def _require_new_enough(server: models.VersionInfo) -> None:
    try:
        version = tuple(int(number) for number in server.version.split(".")[:2])
    except ValueError:
        raise PortRejected(_PORT, _NO_QDRANT) from None
    if version < _OLDEST:
        raise PortRejected(_PORT, f"Qdrant 1.11 is needed, and this server is {server.version}")


def _is(field: str, value: UUID) -> models.FieldCondition:
    return models.FieldCondition(key=field, match=models.MatchValue(value=str(value)))


def _is_any(field: str, values: Collection[UUID]) -> models.FieldCondition:
    return models.FieldCondition(key=field, match=models.MatchAny(any=[str(value) for value in values]))


def _parts(things: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for begin in range(0, len(things), size):
        yield things[begin : begin + size]


def _rank(one: Neighbour) -> tuple[float, ReferenceId]:
    return -one.similarity, one.reference


def _to_point(entry: Entry) -> models.PointStruct:
    return models.PointStruct(
        id=str(entry.reference),
        vector=entry.embedding.vector.tolist(),
        payload={"gallery": str(entry.gallery), "person": str(entry.person)},
    )


def _to_neighbour(point: models.ScoredPoint) -> Neighbour:
    return Neighbour(reference=_to_reference(point), person=_to_person(point), similarity=point.score)


def _to_reference(point: models.ScoredPoint | models.Record) -> ReferenceId:
    return ReferenceId(UUID(str(point.id)))


def _to_person(point: models.ScoredPoint | models.Record) -> PersonId:
    return PersonId(UUID((point.payload or {})["person"]))
