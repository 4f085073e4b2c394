"""The main job of the service on every combination of backends that can run without a server of somebody else's."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final, final
from uuid import uuid4

import httpx
import msgspec
import pytest

from application.ports.blob_store import BlobStore
from application.ports.cache import Cache
from application.ports.calibrations import Calibrations
from application.ports.face_embedder import FaceEmbedder
from application.ports.job_queue import JobQueue
from domain.embedding import EmbeddingSpace
from domain.face import Analysis, Embed
from entrypoints.settings import (
    BlobStoreSettings,
    CacheSettings,
    FaceEmbedderSettings,
    JobQueueSettings,
    Settings,
    VectorIndexSettings,
)
from entrypoints.wiring.background import work
from entrypoints.wiring.startup import opened
from tests.e2e.calls import REFERENCES, agreement, enrol, found, is_verified, listed, until
from tests.e2e.in_process import LoadedEmbedder, Served, served, settings_for
from tests.e2e.wire import encoded
from tests.e2e.with_jobs import CURVE
from tests.integration.qdrant_peer import QdrantPeer
from tests.redis_server import RedisServer, redis_server
from tests.s3_server import ACCESS_KEY, REGION, SECRET_KEY, S3Server


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where backends of one test may be."""

    folder: Path
    own_database: str
    s3: S3Server
    redis: str


@final
class Remembering(FaceEmbedder):
    """Looks at each image once: here it is not the face model that differs."""

    def __init__(self, inner: FaceEmbedder) -> None:
        self._inner = inner
        self._seen: dict[tuple[bytes, Embed], Analysis] = {}

    @property
    def space(self) -> EmbeddingSpace:
        return self._inner.space

    async def analyse(self, image: bytes, *, embed: Embed) -> Analysis:
        if (image, embed) not in self._seen:
            self._seen[image, embed] = await self._inner.analyse(image, embed=embed)
        return self._seen[image, embed]

    async def close(self) -> None:
        """Whoever made the inner one closes it."""


Chosen = Callable[[Place], AbstractAsyncContextManager[dict[str, msgspec.Struct]]]
"""What one backend adds to the settings, while it is there."""


def of(**settings: Callable[[Place], msgspec.Struct]) -> Chosen:
    """A backend that needs nothing started."""

    @asynccontextmanager
    async def chosen(place: Place) -> AsyncIterator[dict[str, msgspec.Struct]]:
        yield {name: made(place) for name, made in settings.items()}

    return chosen


@asynccontextmanager
async def qdrant_over_http(place: Place) -> AsyncIterator[dict[str, msgspec.Struct]]:  # noqa: ARG001 - as the others
    async with QdrantPeer() as peer:
        yield {"vector_index": VectorIndexSettings(backend="qdrant", url=peer.url)}


def s3(place: Place) -> BlobStoreSettings:
    return BlobStoreSettings(
        backend="s3",
        endpoint=place.s3.url,
        region=REGION,
        bucket=place.s3.new_bucket(),
        access_key=ACCESS_KEY,
        secret_key=SECRET_KEY,
    )


INDEXES: Final[dict[str, Chosen]] = {
    "pgvector": of(vector_index=lambda _: VectorIndexSettings()),
    "pgvector apart": of(vector_index=lambda place: VectorIndexSettings(url=place.own_database)),
    "pgvector of 16 bits": of(vector_index=lambda _: VectorIndexSettings(half_precision=True)),
    "qdrant in a folder": of(
        vector_index=lambda place: VectorIndexSettings(backend="qdrant", path=place.folder / "qdrant")
    ),
    "qdrant over HTTP": qdrant_over_http,
}
BLOB_STORES: Final[dict[str, Chosen]] = {
    "filesystem": of(blob_store=lambda place: BlobStoreSettings(path=place.folder / "images")),
    "s3": of(blob_store=s3),
}
QUEUES: Final[dict[str, Chosen]] = {
    "in process": of(job_queue=lambda _: JobQueueSettings(upkeep_seconds=1.0)),
    "arq": of(
        job_queue=lambda place: JobQueueSettings(backend="arq", url=place.redis, name=uuid4().hex, upkeep_seconds=1.0)
    ),
}
CACHES: Final[dict[str, Chosen]] = {
    "memory": of(cache=lambda _: CacheSettings()),
    "redis": of(cache=lambda place: CacheSettings(backend="redis", url=place.redis)),
}
OF_ONE_PROCESS: Final = "qdrant in a folder"
"""Which the settings refuse beside workers."""
COMBINATIONS: Final = [
    pytest.param(
        [INDEXES[index], BLOB_STORES[blobs], QUEUES[queue], CACHES[cache]], id=f"{index}-{blobs}-{queue}-{cache}"
    )
    for index, blobs, queue, cache in product(INDEXES, BLOB_STORES, QUEUES, CACHES)
    if not (index == OF_ONE_PROCESS and queue == "arq")
]


@pytest.fixture(scope="module")
def remembering(embedder: FaceEmbedder) -> Remembering:
    return Remembering(embedder)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """One for all: each service has a queue of its own name on it."""
    with redis_server() as server:
        yield server


@pytest.fixture
def place(tmp_path: Path, empty_database_url: str, s3: S3Server, redis: RedisServer) -> Place:
    return Place(folder=tmp_path, own_database=empty_database_url, s3=s3, redis=redis.url)


@asynccontextmanager
async def with_a_worker(service: Served) -> AsyncIterator[None]:
    """Work inside the block where the service leaves that to others."""
    if (await service.container.get(Settings)).job_queue.backend == "in_process":
        yield
        return
    working = asyncio.create_task(work(service.container))
    try:
        yield
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


@pytest.mark.parametrize("backends", COMBINATIONS)
async def test_people_are_enrolled_found_verified_and_deleted_whatever_the_backends(  # noqa: PLR0917 - fixtures
    backends: list[Chosen],
    place: Place,
    database_url: str,
    open_pack_dir: Path,
    remembering: Remembering,
    astronaut: bytes,
    again: bytes,
    cast: list[bytes],
) -> None:
    settings = settings_for(database_url, place.folder, open_pack_dir)
    async with AsyncExitStack() as stack:
        for chosen in backends:
            settings = msgspec.structs.replace(settings, **await stack.enter_async_context(chosen(place)))
        service = await stack.enter_async_context(served(settings, LoadedEmbedder(remembering)))
        await stack.enter_async_context(with_a_worker(service))
        await are_in_use(service, settings)
        await remembers(service)
        await main_job(service, enrolled=astronaut, probe=again, by_a_job=cast[0])


@pytest.mark.parametrize("backend", ["onnx", "insightface"])
async def test_people_are_enrolled_found_verified_and_deleted_with_either_face_model(  # noqa: PLR0917 - fixtures
    backend: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    database_url: str,
    open_pack_dir: Path,
    astronaut: bytes,
    again: bytes,
    cast: list[bytes],
) -> None:
    settings = settings_for(database_url, tmp_path, open_pack_dir)
    if backend == "insightface":
        models = request.getfixturevalue("shared") / "models"
        chosen = FaceEmbedderSettings(backend=backend, pack="tiny", root=insightface_root(tmp_path, models))
        settings = msgspec.structs.replace(settings, face_embedder=chosen)
        await keep_a_curve(settings)
    async with served(settings) as service:
        await main_job(service, enrolled=astronaut, probe=again, by_a_job=cast[0])


def insightface_root(folder: Path, models: Path) -> Path:
    """Lay a pack down as the library finds one."""
    files = [models / name for name in ("scrfd_2.5g_bnkps.onnx", "mobilefacenet_128d.onnx")]
    pack = folder / "insightface" / "models" / "tiny"
    pack.mkdir(parents=True)
    for file in files:
        if not file.is_file():
            pytest.skip(f"{file.name}, half of an InsightFace pack, is not in {models}")
        (pack / file.name).symlink_to(file)
    return folder / "insightface"


async def keep_a_curve(settings: Settings) -> None:
    """No pack of InsightFace's comes with one: what `facepass calibrate --write` does."""
    async with opened(settings) as container:
        space = (await container.get(FaceEmbedder)).space
        (await container.get(Calibrations)).keep(CURVE, space=space)


async def are_in_use(service: Served, settings: Settings) -> None:
    """Each adapter stands in the file that its backend gave its name."""
    chosen = {
        BlobStore: settings.blob_store.backend,
        JobQueue: settings.job_queue.backend,
        Cache: settings.cache.backend,
    }
    used = {port: type(await service.container.get(port)).__module__.rpartition(".")[2] for port in chosen}
    assert used == chosen


async def remembers(service: Served) -> None:
    cache = await service.container.get(Cache)
    key = uuid4().hex
    async with asyncio.timeout(30.0):  # one that is slow to answer is done without for a while
        while await cache.get(key) != b"remembered":
            await cache.put(key, b"remembered", seconds=60.0)
            await asyncio.sleep(0.01)


async def main_job(service: Served, *, enrolled: bytes, probe: bytes, by_a_job: bytes) -> None:
    """One person by a call and another by a job, and then nobody."""
    client = service.client
    ready = await client.get("http://facepass/health/ready")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready"), ready.text

    (made,) = (await enrol(client, enrolled, external_id="eileen"))["accepted"]
    assert made["searchable"]
    assert await found(client, probe) == ["eileen"]
    assert await is_verified(client, probe, "eileen")
    await enrol_by_a_job(client, by_a_job, "somebody")
    assert await found(client, by_a_job) == ["somebody"]
    report = await agreement(service)
    assert (report.agrees, report.references) == (True, 2)
    image = await client.get(f"{REFERENCES}/{made['id']}/image")
    assert (image.status_code, image.content) == (200, enrolled)

    for reference in await listed(client, REFERENCES):
        assert (await client.delete(f"{REFERENCES}/{reference['id']}")).status_code == 204
    assert await found(client, probe) == await found(client, by_a_job) == []
    assert (await client.get(f"{REFERENCES}/{made['id']}/image")).status_code == 404
    report = await agreement(service)
    assert (report.agrees, report.references) == (True, 0)
    await nothing_is_kept(service)


async def enrol_by_a_job(client: httpx.AsyncClient, image: bytes, name: str) -> None:
    answer = await client.post(
        f"{REFERENCES}/batch",
        json={"items": [{"external_id": name, "image": encoded(image)}]},
        headers={"Prefer": "respond-async"},
    )
    assert answer.status_code == 202, answer.text
    job = f"/jobs/{answer.json()['id']}"

    async def ended() -> bool:
        return (await client.get(job)).json()["finished_at"] is not None

    await until(ended)
    assert (await client.get(job)).json()["status"] == "succeeded"


async def nothing_is_kept(service: Served) -> None:
    """Wait until no image is in the store: those of the job go after its end."""
    blobs = await service.container.get(BlobStore)

    async def empty() -> bool:
        return not [key async for key in blobs.keys("")]

    await until(empty)
