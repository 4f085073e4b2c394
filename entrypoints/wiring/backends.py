"""Vector index, blob store, job queue: each chosen by one setting."""

from collections.abc import AsyncIterator

from dishka import Provider, Scope, provide

from adapters.blob_store.filesystem import FilesystemBlobStore
from adapters.job_queue.in_process import InProcessJobQueue
from adapters.persistence.database import Database, engine
from adapters.persistence.ping import DatabasePing
from adapters.persistence.schema_ping import SchemaPing
from adapters.vector_index.pgvector import PgvectorVectorIndex
from application.ports.blob_store import BlobStore
from application.ports.face_embedder import FaceEmbedder
from application.ports.job_queue import JobQueue
from application.ports.ping import Ping
from application.ports.upkeep import Upkeep
from application.ports.vector_index import VectorIndex
from application.use_cases.upkeep.check_readiness import CheckReadiness
from entrypoints.settings import Settings
from entrypoints.wiring.database import ServerUrl


class BackendProvider(Provider):
    """What stands outside the record, and who of it answers pings and wants upkeep."""

    scope = Scope.APP

    @provide
    async def index(
        self, settings: Settings, url: ServerUrl, database: Database, embedder: FaceEmbedder
    ) -> AsyncIterator[VectorIndex]:
        """Use pgvector in the main database, or in one of its own; either way over connections of its own.

        Searches and the building of an index take long: verification and credentials do not wait behind them.
        """
        chosen = settings.vector_index
        size, timeout = settings.database.pool_size, settings.database.timeout
        pools = [engine(chosen.url or url, connections=size, timeout=timeout, autocommit=True)]
        if chosen.url is not None:
            pools.append(engine(chosen.url, connections=1, timeout=timeout, autocommit=True))
        pings = database.pings if chosen.url is None else pools[-1]
        extra = {} if chosen.exact_up_to is None else {"exact_up_to": chosen.exact_up_to}
        index = PgvectorVectorIndex(pools[0], embedder.space, pings=pings, **extra)
        try:
            await index.prepare()
            yield index
        finally:
            for pool in pools:
                await pool.dispose()

    @provide
    def blobs(self, settings: Settings) -> BlobStore:
        """Keep files in a folder."""
        return FilesystemBlobStore(settings.blobs_path)

    @provide
    def queue(self) -> JobQueue:
        """Keep jobs in the process."""
        return InProcessJobQueue()

    @provide
    def readiness(
        self, database: Database, embedder: FaceEmbedder, index: VectorIndex, blobs: BlobStore, queue: JobQueue
    ) -> CheckReadiness:
        """Ask all who can be asked; a third party's backend that answers no pings is taken on trust."""
        backends: list[object] = [
            DatabasePing(database.pings),
            SchemaPing(database.pings),
            embedder,
            index,
            blobs,
            queue,
        ]
        return CheckReadiness(pings=[one for one in backends if isinstance(one, Ping)])

    @provide
    def upkeep(self, index: VectorIndex, blobs: BlobStore) -> "list[Upkeep]":
        """Collect the backends that want something done regularly."""
        backends: list[object] = [index, blobs]
        return [one for one in backends if isinstance(one, Upkeep)]
