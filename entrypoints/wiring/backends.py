"""Blob store, job queue, and who of all backends answers pings and wants upkeep."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import final

from dishka import Provider, Scope, provide

from adapters.blob_store.filesystem import FilesystemBlobStore
from adapters.cache.memory import MemoryCache
from adapters.persistence.database import Database
from adapters.persistence.ping import DatabasePing
from adapters.persistence.schema_ping import SchemaPing
from adapters.rate_limiter.memory import MemoryRateLimiter
from application.ports.blob_store import BlobStore
from application.ports.cache import Cache
from application.ports.face_embedder import FaceEmbedder
from application.ports.index_states import IndexStates
from application.ports.job_queue import JobQueue
from application.ports.ping import Ping
from application.ports.rate_limiter import RateLimiter
from application.ports.upkeep import Upkeep
from application.use_cases.upkeep.check_readiness import CheckReadiness
from entrypoints.settings import BlobStoreSettings, Settings
from entrypoints.wiring.adapters import Port, extra_of, require_one_owner, third_party
from entrypoints.wiring.faces import NextFaceEmbedder, SecondEmbedder
from entrypoints.wiring.indexes import Indexes, OtherIndexes, ServingIndex
from entrypoints.wiring.queues import opened_queue
from entrypoints.wiring.start_error import StartError


class BackendProvider(Provider):
    """What stands outside the record, beside the vector index."""

    scope = Scope.APP

    @provide
    async def blobs(self, settings: Settings) -> AsyncIterator[BlobStore]:
        """Keep files in a folder, or wherever the settings say."""
        chosen = settings.blob_store
        if chosen.backend == "filesystem":
            require_one_owner(Port.BLOB_STORE, chosen.backend)
            yield FilesystemBlobStore(settings.blobs_path)
            return
        if chosen.backend == "s3":
            async with _opened_s3(chosen) as store:
                yield store
            return
        async with third_party(Port.BLOB_STORE, chosen.backend)(options=chosen.options) as store:
            yield store

    @provide
    async def queue(self, settings: Settings) -> AsyncIterator[JobQueue]:
        """Keep jobs in the process, or wherever the settings say."""
        async with opened_queue(settings.job_queue) as queue:
            yield queue

    @provide
    async def cache(self, settings: Settings) -> AsyncIterator[Cache]:
        """Remember in the process, or in a Redis."""
        if settings.cache.backend == "memory" or settings.cache.url is None:
            yield MemoryCache()
            return
        with _redis():
            from adapters.cache.redis import open_redis_cache  # noqa: PLC0415 - its packages are an extra
        async with open_redis_cache(settings.cache.url, name=settings.job_queue.name) as cache:
            yield cache

    @provide
    async def limiter(self, settings: Settings) -> AsyncIterator[RateLimiter]:
        """Count in the process, or in a Redis."""
        if settings.cache.backend == "memory" or settings.cache.url is None:
            yield MemoryRateLimiter()
            return
        with _redis():
            from adapters.rate_limiter.redis import open_redis_rate_limiter  # noqa: PLC0415 - the same
        async with open_redis_rate_limiter(settings.cache.url, name=settings.job_queue.name) as limiter:
            yield limiter

    @provide
    def readiness(
        self,
        database: Database,
        embedder: FaceEmbedder,
        states: IndexStates,
        indexes: Indexes,
        blobs: BlobStore,
        queue: JobQueue,
        cache: Cache,
        limiter: RateLimiter,
        following: NextFaceEmbedder,
    ) -> CheckReadiness:
        """Ask all who can be asked; a third party's backend that answers no pings is taken on trust."""
        needed: list[object] = [
            DatabasePing(database.pings),
            SchemaPing(database.pings),
            embedder,
            ServingIndex(states, indexes[embedder.space.id]),
            blobs,
        ]
        dispensable: list[object] = [OtherIndexes(states, indexes[embedder.space.id]), queue, cache, limiter]
        if following is not None:
            needed.append(SecondEmbedder(following))
        return CheckReadiness(
            pings=[one for one in needed if isinstance(one, Ping)],
            dispensable=[one for one in dispensable if isinstance(one, Ping)],
        )

    @provide
    def upkeep(self, indexes: Indexes, blobs: BlobStore) -> "list[Upkeep]":
        """Collect the backends that want something done regularly."""
        backends: dict[str, object] = {
            f"vector_index:{name}:{space}": index for space, named in indexes.items() for name, index in named.items()
        }
        backends["blob_store"] = blobs
        return [CalledUpkeep(name, one) for name, one in backends.items() if isinstance(one, Upkeep)]


@final
class CalledUpkeep(Upkeep):
    """Under a name that is the same in every process, whatever else is set up there: workers share regular work."""

    def __init__(self, name: str, upkeep: Upkeep) -> None:
        """Take both."""
        self._name = name
        self._upkeep = upkeep

    @property
    def name(self) -> str:
        """As it is called here."""
        return self._name

    async def tidy(self) -> None:
        """Do what is due."""
        await self._upkeep.tidy()


@contextmanager
def _redis() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise StartError(
            "FACEPASS_CACHE__BACKEND: redis needs packages that are not installed: pip install 'facepass[redis]'"
        ) from error


@asynccontextmanager
async def _opened_s3(chosen: BlobStoreSettings) -> AsyncIterator[BlobStore]:
    with extra_of(Port.BLOB_STORE, chosen.backend):
        from adapters.blob_store.s3 import open_s3_blob_store  # noqa: PLC0415 - its packages are an extra
    if chosen.bucket is None:
        raise StartError("FACEPASS_BLOB_STORE__BUCKET: s3 needs the name of a bucket")
    async with open_s3_blob_store(
        bucket=chosen.bucket,
        prefix=chosen.prefix,
        endpoint=chosen.endpoint,
        region=chosen.region,
        access_key=chosen.access_key,
        secret_key=chosen.secret_key,
        encryption=chosen.encryption or None,
        kms_key=chosen.kms_key,
    ) as store:
        yield store
