"""Vector indexes: one, or two while the installation moves from one to the other; each turned, each for one space."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NewType

import structlog
from dishka import Provider, Scope, provide

from adapters.persistence.database import Database, engine
from adapters.persistence.index_states import SqlIndexStates
from adapters.vector_index.pgvector import EXACT_UP_TO, PgvectorVectorIndex
from adapters.vector_index.turned import TurnedVectorIndex
from application.ports.calibrations import Calibrations
from application.ports.clock import Clock
from application.ports.errors import PortUnavailable
from application.ports.face_embedder import FaceEmbedder
from application.ports.index_states import IndexName, IndexStates
from application.ports.keyed_hash import KeyedHash
from application.ports.ping import Ping
from application.ports.vector_index import VectorIndex
from application.use_cases.spaces import ServedSpace, ServedSpaces
from domain.calibration import Calibration
from domain.embedding import EmbeddingSpace, SpaceId
from entrypoints.settings import Settings, VectorIndexSettings
from entrypoints.wiring.adapters import Port, extra_of, require_one_owner, third_party
from entrypoints.wiring.database import ServerUrl
from entrypoints.wiring.faces import NextFaceEmbedder

log = structlog.get_logger("facepass.indexes")

Indexes = NewType("Indexes", dict[SpaceId, dict[IndexName, VectorIndex]])
"""All that are open, by space and name: as their backends see them, with turned vectors."""


class IndexProvider(Provider):
    """Opens what the settings name, and puts it together with the face models."""

    scope = Scope.APP

    @provide
    async def index(
        self, settings: Settings, url: ServerUrl, database: Database, embedder: FaceEmbedder
    ) -> AsyncIterator[VectorIndex]:
        """Open the one that `FACEPASS_VECTOR_INDEX__*` names, for the first face model."""
        async with opened_index(settings.vector_index, embedder.space, settings, url, database) as index:
            yield index

    @provide
    async def indexes(
        self,
        settings: Settings,
        url: ServerUrl,
        database: Database,
        embedder: FaceEmbedder,
        following: NextFaceEmbedder,
        index: VectorIndex,
    ) -> AsyncIterator[Indexes]:
        """Open the others: of a second backend, and for a second face model."""
        first, second = settings.vector_index, settings.next_vector_index
        async with AsyncExitStack() as stack:

            async def opened(chosen: VectorIndexSettings, space: EmbeddingSpace) -> VectorIndex:
                return await stack.enter_async_context(opened_index(chosen, space, settings, url, database))

            found = {embedder.space.id: {IndexName(first.called): index}}
            if following is not None:
                found[following.space.id] = {IndexName(first.called): await opened(first, following.space)}
            if second.backend:
                for one in (embedder, following):
                    if one is not None:
                        found[one.space.id][IndexName(second.called)] = await opened(second, one.space)
            yield Indexes(found)

    @provide
    def states(self, settings: Settings, database: Database, clock: Clock) -> IndexStates:
        """Read which index answers, over a pool that no search exhausts."""
        return SqlIndexStates(database.pings, IndexName(settings.vector_index.called), clock=clock)

    @provide
    def spaces(
        self,
        embedder: FaceEmbedder,
        following: NextFaceEmbedder,
        indexes: Indexes,
        keyed_hash: KeyedHash,
        calibration: Calibration,
        calibrations: Calibrations,
    ) -> ServedSpaces:
        """Put models, curves and indexes together; no index sees a vector that is not turned."""

        def served(model: FaceEmbedder, curve: Calibration) -> ServedSpace:
            turned = {
                name: TurnedVectorIndex(index, keyed_hash, model.space)
                for name, index in indexes[model.space.id].items()
            }
            return ServedSpace(embedder=model, indexes=turned, calibration=curve)

        further = [] if following is None else [served(following, calibrations.of(following.space))]
        return ServedSpaces(served(embedder, calibration), *further)


class ServingIndex(Ping):
    """Asks the index that answers searches, whichever that is at the moment."""

    def __init__(self, states: IndexStates, indexes: Mapping[IndexName, VectorIndex]) -> None:
        """Take those of the first space: both spaces' are of one backend."""
        self._states = states
        self._indexes = indexes

    @property
    def name(self) -> str:
        """The port's, whichever index it is."""
        return Port.VECTOR_INDEX.value

    async def ping(self) -> None:
        """Ask it, where it can be asked."""
        serving = (await self._states.now()).serving
        index: object = self._indexes.get(serving)
        if index is None:
            raise PortUnavailable(self.name, f"{serving!r} answers searches, and this process has no settings for it")
        if isinstance(index, Ping):
            await index.ping()


@asynccontextmanager
async def opened_index(
    chosen: VectorIndexSettings, space: EmbeddingSpace, settings: Settings, url: ServerUrl, database: Database
) -> AsyncIterator[VectorIndex]:
    """Open one index of one space. Raises `StartError` for a backend that is not there."""
    if chosen.backend == "pgvector":
        require_one_owner(Port.VECTOR_INDEX, chosen.backend)
        async with _opened_pgvector(chosen, space, settings, url, database) as index:
            yield index
        return
    async with opened_elsewhere(chosen, space) as index:
        yield index


@asynccontextmanager
async def opened_elsewhere(chosen: VectorIndexSettings, space: EmbeddingSpace) -> AsyncIterator[VectorIndex]:
    """Open one that needs nothing of the record's database. Raises `StartError` for a backend that is not there."""
    if chosen.backend == "qdrant":
        with extra_of(Port.VECTOR_INDEX, chosen.backend):
            from adapters.vector_index.qdrant import open_qdrant  # noqa: PLC0415 - its packages are an extra
        async with open_qdrant(
            space,
            url=chosen.url,
            api_key=chosen.api_key,
            # A folder belongs to one client, and each space has its own.
            path=None if chosen.path is None else chosen.path.expanduser().absolute() / space.digest[:12],
            shards=chosen.shards,
            replicas=chosen.replicas,
            write_consistency=chosen.write_consistency,
            timeout=chosen.timeout,
        ) as index:
            yield index
    else:
        factory = third_party(Port.VECTOR_INDEX, chosen.backend)
        async with factory(space=space, options=chosen.options) as index:
            yield index


@asynccontextmanager
async def _opened_pgvector(
    chosen: VectorIndexSettings, space: EmbeddingSpace, settings: Settings, url: ServerUrl, database: Database
) -> AsyncIterator[VectorIndex]:
    """In the main database, or in one of its own; either way over connections of its own.

    Searches and the building of an index take long: verification and credentials do not wait behind them.
    """
    size, timeout = settings.database.pool_size, settings.database.timeout
    pools = [engine(chosen.url or url, connections=size, timeout=timeout, autocommit=True)]
    if chosen.url is not None:
        pools.append(engine(chosen.url, connections=1, timeout=timeout, autocommit=True))
    pings = database.pings if chosen.url is None else pools[-1]
    index = PgvectorVectorIndex(
        pools[0],
        space,
        exact_up_to=chosen.exact_up_to or EXACT_UP_TO,
        half_precision=chosen.half_precision,
        pings=pings,
    )
    try:
        await index.prepare()
        yield index
    finally:
        for pool in pools:
            await pool.dispose()
