from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
from dishka import AsyncContainer, Provider, Scope, provide
from litestar import Litestar

from adapters.blob_store.memory import MemoryBlobStore
from adapters.vector_index.memory import MemoryVectorIndex
from application.ports.blob_store import BlobKey, BlobStore
from application.ports.errors import PortUnavailable
from application.ports.face_embedder import FaceEmbedder
from application.ports.ping import Ping
from application.ports.vector_index import Entry, Neighbour, VectorIndex
from application.use_cases.keys.bootstrap import Bootstrap
from domain import credential
from domain.embedding import Embedding, EmbeddingSpace
from domain.enrolment import ReferenceId
from domain.gallery import GalleryId
from domain.person import PersonId
from domain.workspace import WorkspaceId
from entrypoints.http.app import make_app
from entrypoints.settings import DatabaseSettings, JobQueueSettings, ModelsSettings, Settings
from entrypoints.wiring.background import background
from entrypoints.wiring.startup import opened, started


class StoppableVectorIndex(VectorIndex, Ping):
    """The memory index, which can be taken down and brought up again."""

    def __init__(self, space: EmbeddingSpace) -> None:
        self._index: Final = MemoryVectorIndex(space)
        self.down = False
        self.before_upsert: Callable[[], Awaitable[None]] | None = None
        """What happens elsewhere before something is written."""

    @property
    def name(self) -> str:
        return "vector_index"

    async def ping(self) -> None:
        self._require_up()

    async def search(
        self,
        probe: Embedding,
        *,
        gallery: GalleryId,
        people: int,
        per_person: int = 1,
        among: Sequence[PersonId] | None = None,
    ) -> Sequence[Neighbour]:
        self._require_up()
        return await self._index.search(probe, gallery=gallery, people=people, per_person=per_person, among=among)

    async def upsert(self, entries: Sequence[Entry]) -> None:
        self._require_up()
        if self.before_upsert is not None:
            await self.before_upsert()
        await self._index.upsert(entries)

    async def remove(self, references: Sequence[ReferenceId]) -> None:
        self._require_up()
        await self._index.remove(references)

    async def entries(self, gallery: GalleryId) -> AsyncIterator[Entry]:
        self._require_up()
        async for entry in self._index.entries(gallery):
            yield entry

    async def clear(self, gallery: GalleryId) -> None:
        self._require_up()
        await self._index.clear(gallery)

    def _require_up(self) -> None:
        if self.down:
            raise PortUnavailable("vector_index", "it cannot be reached")


class StoppableBlobStore(BlobStore, Ping):
    """The memory store, which can be taken down, also in the middle of a call."""

    def __init__(self) -> None:
        self._store: Final = MemoryBlobStore()
        self.puts_left: int | None = None
        """Writes that still succeed; None: all."""
        self.after_put: Callable[[], Awaitable[None]] | None = None
        """What happens elsewhere when something was put."""

    @property
    def name(self) -> str:
        return "blob_store"

    async def ping(self) -> None:
        if self.puts_left == 0:
            raise PortUnavailable("blob_store", "it cannot be reached")

    async def put(self, key: BlobKey, content: bytes) -> None:
        if self.puts_left is not None:
            if not self.puts_left:
                raise PortUnavailable("blob_store", "it cannot be reached")
            self.puts_left -= 1
        await self._store.put(key, content)
        if self.after_put is not None:
            await self.after_put()

    async def get(self, key: BlobKey) -> bytes | None:
        await self.ping()
        return await self._store.get(key)

    async def remove(self, key: BlobKey) -> None:
        await self.ping()
        await self._store.remove(key)

    async def keys(self, prefix: str) -> AsyncIterator[BlobKey]:
        async for key in self._store.keys(prefix):
            yield key


class StandIns(Provider):
    """What takes the place of the built-in backends."""

    scope = Scope.APP

    def __init__(self, embedder: FaceEmbedder, blobs: StoppableBlobStore | None = None) -> None:
        super().__init__()
        self.embedder: Final = embedder
        self.index: Final = StoppableVectorIndex(embedder.space)
        self.blobs: Final = blobs or StoppableBlobStore()

    @provide(override=True)
    def its_embedder(self) -> FaceEmbedder:
        return self.embedder

    @provide(override=True)
    def its_index(self) -> VectorIndex:
        return self.index

    @provide(override=True)
    def its_blobs(self) -> BlobStore:
        return self.blobs


class LoadedEmbedder(Provider):
    """Spares a service the loading of its model, and leaves it every other backend of its settings."""

    def __init__(self, embedder: FaceEmbedder) -> None:
        super().__init__(scope=Scope.APP)
        self.embedder: Final = embedder

    @provide(override=True)
    def its_embedder(self) -> FaceEmbedder:
        return self.embedder


@dataclass(frozen=True, slots=True)
class Served:
    """The service without a socket: the same container and application, called by ASGI."""

    container: AsyncContainer
    app: Litestar
    client: httpx.AsyncClient
    workspace: WorkspaceId


@dataclass(frozen=True, slots=True)
class InProcess(Served):
    """The same, over backends that a test can take down."""

    backends: StandIns


def settings_for(url: str, folder: Path, models: Path) -> Settings:
    """Return the settings of a service over a database that is there already."""
    return Settings(
        data_dir=folder / "data",
        database=DatabaseSettings(url=url, timeout=5.0),
        models=ModelsSettings(dir=models),
        job_queue=JobQueueSettings(upkeep_seconds=0.05),
    )


@asynccontextmanager
async def served(settings: Settings, *overrides: Provider, work: bool = True) -> AsyncIterator[Served]:
    """Open a service with a workspace and a key that may do everything, and close it behind the block.

    Without `work` nothing is done in the background.
    """
    async with opened(settings, *overrides) as container:
        await started(container)
        async with container(scope=Scope.REQUEST) as unit:
            made = await (await unit.get(Bootstrap))(new_key=True, scopes=frozenset(credential.Scope))
        assert made.secret is not None
        app = make_app(container, settings)
        async with (
            background(container) if work else nullcontext(),
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app),
                base_url="http://facepass/api/v1",
                headers={"X-API-Key": made.secret},
                timeout=60.0,
            ) as client,
        ):
            yield Served(container, app, client, made.workspace.id)


@asynccontextmanager
async def in_process(settings: Settings, backends: StandIns, *, work: bool = True) -> AsyncIterator[InProcess]:
    """Open such a service over backends that can be taken down."""
    async with served(settings, backends, work=work) as one:
        yield InProcess(one.container, one.app, one.client, one.workspace, backends)
