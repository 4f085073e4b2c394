"""Vector indexes: one, or two while the installation moves from one to the other; each turned, each for one space."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import NewType, final

from dishka import Provider, Scope, alias, provide
from sqlalchemy.ext.asyncio import AsyncEngine

from adapters.persistence.database import Database, engine
from adapters.persistence.index_states import SqlIndexStateChanges, SqlIndexStates
from adapters.persistence.rotations import SqlRotations
from adapters.vector_index.deferred import deferred
from adapters.vector_index.pgvector import EXACT_UP_TO, PgvectorVectorIndex
from adapters.vector_index.turned import TurnedVectorIndex
from application.ports.calibrations import Calibrations
from application.ports.clock import Clock
from application.ports.errors import PortRejected, PortUnavailable
from application.ports.face_embedder import FaceEmbedder
from application.ports.index_states import IndexName, IndexStateChanges, IndexStates
from application.ports.keyed_hash import KeyedHash
from application.ports.ping import Ping
from application.ports.rotations import Rotations
from application.ports.vector_index import VectorIndex
from application.use_cases.spaces import ServedSpace, ServedSpaces
from domain.calibration import Calibration
from domain.embedding import EmbeddingSpace, SpaceId
from entrypoints.settings import PREFIX, Settings, VectorIndexSettings
from entrypoints.wiring.adapters import Port, extra_of, require_one_owner, third_party
from entrypoints.wiring.database import ServerUrl
from entrypoints.wiring.faces import NextFaceEmbedder
from entrypoints.wiring.start_error import StartError

FIRST = Port.VECTOR_INDEX.setting
NEXT = f"{PREFIX}NEXT_VECTOR_INDEX__BACKEND"

Indexes = NewType("Indexes", dict[SpaceId, dict[IndexName, VectorIndex]])
"""All that are open, by space and name: as their backends see them, with turned vectors."""


@final
class IndexPools:
    """Connections for pgvector, beside those of the record: one pool for each server, whatever is kept there.

    Searches and the building of an index take long: verification and credentials do not wait behind them.
    """

    def __init__(self, main: str, pings: AsyncEngine, *, connections: int, timeout: float) -> None:
        """Take the main database's address and its pool for pings."""
        self._main = main
        self._pings = {main: pings}
        self._pools: dict[str, AsyncEngine] = {}
        self._own: list[AsyncEngine] = []
        self._connections = connections
        self._timeout = timeout

    def of(self, url: str | None) -> tuple[AsyncEngine, AsyncEngine]:
        """Return a server's pools, for work and for pings; None: the main database's."""
        address = url or self._main
        if address not in self._pools:
            self._pools[address] = self._made(address, self._connections)
        if address not in self._pings:
            self._pings[address] = self._made(address, 1)
        return self._pools[address], self._pings[address]

    async def aclose(self) -> None:
        """Close those that were made here."""
        for pool in self._own:
            await pool.dispose()

    def _made(self, address: str, connections: int) -> AsyncEngine:
        made = engine(address, connections=connections, timeout=self._timeout, autocommit=True)
        self._own.append(made)
        return made


class IndexProvider(Provider):
    """Opens what the settings name, and puts it together with the face models."""

    scope = Scope.APP

    @provide
    async def pools(self, settings: Settings, url: ServerUrl, database: Database) -> AsyncIterator[IndexPools]:
        """Connect nothing yet."""
        pools = IndexPools(
            url, database.pings, connections=settings.database.pool_size, timeout=settings.database.timeout
        )
        try:
            yield pools
        finally:
            await pools.aclose()

    @provide
    async def index(self, settings: Settings, pools: IndexPools, embedder: FaceEmbedder) -> AsyncIterator[VectorIndex]:
        """Open the one that `FACEPASS_VECTOR_INDEX__*` names, for the first face model."""
        async with deferred(partial(opened_index, settings.vector_index, embedder.space, pools)) as index:
            yield index

    @provide
    async def indexes(
        self,
        settings: Settings,
        pools: IndexPools,
        embedder: FaceEmbedder,
        following: NextFaceEmbedder,
        index: VectorIndex,
    ) -> AsyncIterator[Indexes]:
        """Open the others: of a second backend, and for a second face model."""
        first, second = settings.vector_index, settings.next_vector_index
        if following is not None and following.space.id == embedder.space.id:
            raise StartError(
                f"{PREFIX}NEXT_FACE_EMBEDDER__PACK: the second model makes the same embeddings as the first: "
                f"{embedder.space.id}"
            )
        async with AsyncExitStack() as stack:

            async def opened(chosen: VectorIndexSettings, space: EmbeddingSpace, place: str) -> VectorIndex:
                return await stack.enter_async_context(deferred(partial(opened_index, chosen, space, pools, place)))

            found = {embedder.space.id: {IndexName(first.called): index}}
            if following is not None:
                own = await opened(first, following.space, FIRST)
                found[following.space.id] = {IndexName(first.called): own}
            if second.backend:
                for one in (embedder, following):
                    if one is not None:
                        found[one.space.id][IndexName(second.called)] = await opened(second, one.space, NEXT)
            yield Indexes(found)

    @provide
    def sql_states(self, settings: Settings, database: Database, clock: Clock) -> SqlIndexStates:
        """Read which index answers, over a pool that no search exhausts."""
        return SqlIndexStates(database.pings, IndexName(settings.vector_index.called), clock=clock)

    states = alias(source=SqlIndexStates, provides=IndexStates)
    state_changes = provide(SqlIndexStateChanges, provides=IndexStateChanges, scope=Scope.REQUEST)

    @provide
    def rotations(self, database: Database) -> Rotations:
        """Read by which rotation each gallery is turned."""
        return SqlRotations(database.reads)

    @provide
    def spaces(
        self,
        embedder: FaceEmbedder,
        following: NextFaceEmbedder,
        indexes: Indexes,
        keyed_hash: KeyedHash,
        rotations: Rotations,
        calibration: Calibration,
        calibrations: Calibrations,
    ) -> ServedSpaces:
        """Put models, curves and indexes together; no index sees a vector that is not turned."""

        def served(model: FaceEmbedder, curve: Calibration) -> ServedSpace:
            turned = {
                name: TurnedVectorIndex(index, keyed_hash, model.space, rotations=rotations)
                for name, index in indexes[model.space.id].items()
            }
            return ServedSpace(embedder=model, indexes=turned, calibration=curve)

        further = [] if following is None else [served(following, calibrations.of(following.space))]
        return ServedSpaces(served(embedder, calibration), *further)


@final
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


@final
class OtherIndexes(Ping):
    """Asks those that answer no searches: they are written to while the installation moves."""

    def __init__(self, states: IndexStates, indexes: Mapping[IndexName, VectorIndex]) -> None:
        """Take those of the first space."""
        self._states = states
        self._indexes = indexes

    @property
    def name(self) -> str:
        """Another name than that of the port, which the one has that answers."""
        return "next_vector_index"

    async def ping(self) -> None:
        """Ask each; there may be none."""
        state = await self._states.now()
        others: dict[IndexName, object] = {name: one for name, one in self._indexes.items() if name != state.serving}
        for name, index in others.items():
            if isinstance(index, Ping):
                try:
                    await index.ping()
                except PortRejected:
                    if name in state.written:  # else it was dropped: who opens it next makes it anew
                        raise


@asynccontextmanager
async def opened_index(
    chosen: VectorIndexSettings, space: EmbeddingSpace, pools: IndexPools, place: str = FIRST
) -> AsyncIterator[VectorIndex]:
    """Open one index of one space. Raises `StartError` for a backend that is not there, naming its setting."""
    if chosen.backend == "pgvector":
        require_one_owner(Port.VECTOR_INDEX, chosen.backend, setting=place)
        work, pings = pools.of(chosen.url)
        table = PgvectorVectorIndex(
            work,
            space,
            exact_up_to=chosen.exact_up_to or EXACT_UP_TO,
            half_precision=chosen.half_precision,
            pings=pings,
        )
        await table.prepare()
        yield table
        return
    async with opened_elsewhere(chosen, space, place) as index:
        yield index


@asynccontextmanager
async def opened_elsewhere(
    chosen: VectorIndexSettings, space: EmbeddingSpace, place: str = FIRST
) -> AsyncIterator[VectorIndex]:
    """Open one that needs nothing of the record's database. Raises `StartError` for a backend that is not there."""
    if chosen.backend == "qdrant":
        with extra_of(Port.VECTOR_INDEX, chosen.backend, setting=place):
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
        factory = third_party(Port.VECTOR_INDEX, chosen.backend, setting=place)
        async with factory(space=space, options=chosen.options) as index:
            yield index
