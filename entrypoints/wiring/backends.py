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


class BackendProvider(Provider):
    """What stands outside the record, and who of it answers pings and wants upkeep."""

    scope = Scope.APP

    @provide
    async def index(self, settings: Settings, database: Database, embedder: FaceEmbedder) -> AsyncIterator[VectorIndex]:
        """Use pgvector in the main database, or in one of its own."""
        chosen = settings.vector_index
        apart = (
            None
            if chosen.url is None
            else engine(
                chosen.url, connections=settings.database.pool_size, timeout=settings.database.timeout, autocommit=True
            )
        )
        extra = {} if chosen.exact_up_to is None else {"exact_up_to": chosen.exact_up_to}
        index = PgvectorVectorIndex(database.reads if apart is None else apart, embedder.space, **extra)
        await index.prepare()
        try:
            yield index
        finally:
            if apart is not None:
                await apart.dispose()

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
            DatabasePing(database.reads),
            SchemaPing(database.reads),
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
