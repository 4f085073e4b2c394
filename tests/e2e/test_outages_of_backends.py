"""What calls are answered, and what is left where, while one real backend is away; and after it came back."""

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import msgspec
import pytest
from dishka import Provider, Scope, decorate
from sqlalchemy.engine import make_url

from adapters.embedded.postgres import EmbeddedPostgres
from adapters.persistence import schema
from application.ports.blob_store import BlobKey, BlobStore
from application.ports.face_embedder import FaceEmbedder
from application.ports.vector_index import VectorIndex
from application.use_cases.galleries.get_gallery import GetGallery
from domain.enrolment import ReferenceId
from entrypoints.settings import BlobStoreSettings, Settings, VectorIndexSettings
from tests.conftest import end_connections, execute
from tests.e2e.calls import PEOPLE, REFERENCES, agreement, enrol, found, is_down, is_verified, listed, until
from tests.e2e.in_process import LoadedEmbedder, Served, served, settings_for
from tests.integration.qdrant_peer import served as qdrant_process
from tests.s3_server import ACCESS_KEY, REGION, SECRET_KEY, S3Server


@dataclass(frozen=True, slots=True)
class Backend:
    """One that a test can take away and bring back."""

    settings: msgspec.Struct
    goes: Callable[[], Awaitable[None]]
    comes: Callable[[], Awaitable[None]]


@contextmanager
def own_postgres() -> Iterator[EmbeddedPostgres]:
    """A server of this test's own, to be stopped."""
    with tempfile.TemporaryDirectory(prefix="facepass-outage-") as folder:
        # Started by root it runs as another account, which must get to its folder.
        Path(folder).chmod(0o711)
        server = EmbeddedPostgres(Path(folder) / "postgres", linger=0.1)
        try:
            yield server
        finally:
            server.stop()
            assert server.wait_ended(60.0)


async def stop(server: EmbeddedPostgres) -> None:
    server.stop()
    assert await asyncio.to_thread(server.wait_ended, 60.0)


@asynccontextmanager
async def pgvector_apart() -> AsyncIterator[Backend]:
    """On a server of its own, which is stopped."""
    with own_postgres() as server:

        async def comes() -> None:
            await asyncio.to_thread(server.start)

        url = await asyncio.to_thread(server.start)
        yield Backend(VectorIndexSettings(url=url), lambda: stop(server), comes)


@asynccontextmanager
async def qdrant_that_hangs() -> AsyncIterator[Backend]:
    """A process that takes connections and answers nobody."""
    async with qdrant_process() as (process, url):

        async def told(how: signal.Signals) -> None:
            os.kill(process.pid, how)

        settings = VectorIndexSettings(backend="qdrant", url=url, timeout=1.0)
        yield Backend(settings, lambda: told(signal.SIGSTOP), lambda: told(signal.SIGCONT))


def s3_settings(server: S3Server) -> BlobStoreSettings:
    return BlobStoreSettings(
        backend="s3",
        endpoint=server.url,
        region=REGION,
        bucket=server.new_bucket(),
        access_key=ACCESS_KEY,
        secret_key=SECRET_KEY,
    )


@pytest.fixture
def settings(database_url: str, tmp_path: Path, open_pack_dir: Path) -> Settings:
    return settings_for(database_url, tmp_path, open_pack_dir)


def but(settings: Settings, **changes: msgspec.Struct) -> Settings:
    return msgspec.structs.replace(settings, **changes)


async def unready(service: Served) -> Mapping[str, str]:
    """Wait until readiness has seen it, and return what is wrong, by port."""
    said: dict[str, str] = {}

    async def seen() -> bool:
        answer = await service.client.get("http://facepass/health/ready")
        said.update(answer.json()["checks"])
        return answer.status_code == 503

    await until(seen)
    return {port: what for port, what in said.items() if what != "ok"}


class TestVectorIndex:
    @pytest.mark.parametrize("backend", [pgvector_apart, qdrant_that_hangs])
    async def test_what_is_enrolled_without_it_is_found_once_it_is_back_and_nobody_did_anything(
        self,
        backend: Callable[[], AbstractAsyncContextManager[Backend]],
        settings: Settings,
        embedder: FaceEmbedder,
        astronaut: bytes,
        cast: list[bytes],
    ) -> None:
        async with (
            backend() as index,
            served(but(settings, vector_index=index.settings), LoadedEmbedder(embedder)) as service,
        ):
            client = service.client
            before = (await enrol(client, cast[0], external_id="before"))["accepted"][0]
            await index.goes()
            made = (await enrol(client, astronaut, external_id="eileen"))["accepted"][0]
            assert not made["searchable"]
            assert await is_verified(client, astronaut, "eileen")
            is_down(await client.post("/search", files={"image": astronaut}))
            assert (await client.delete(f"{REFERENCES}/{before['id']}")).status_code == 204
            assert set(await unready(service)) == {"vector_index"}

            await index.comes()

            async def searchable() -> bool:
                return bool((await client.get(f"{REFERENCES}/{made['id']}")).json()["searchable"])

            await until(searchable)
            assert await found(client, astronaut) == ["eileen"]
            assert await found(client, cast[0]) == []

            async def agrees() -> bool:
                return (await agreement(service)).agrees

            await until(agrees)

    async def test_a_killed_qdrant_is_no_obstacle_to_enrolment_and_verification(
        self, settings: Settings, embedder: FaceEmbedder, astronaut: bytes
    ) -> None:
        async with qdrant_process() as (process, url):
            chosen = but(settings, vector_index=VectorIndexSettings(backend="qdrant", url=url))
            async with served(chosen, LoadedEmbedder(embedder)) as service:
                process.kill()
                await process.wait()
                made = await enrol(service.client, astronaut, external_id="eileen")
                assert [one["searchable"] for one in made["accepted"]] == [False]
                assert await is_verified(service.client, astronaut, "eileen")
                is_down(await service.client.post("/search", files={"image": astronaut}))


async def kept(service: Served, gallery: Any) -> tuple[list[BlobKey], list[ReferenceId]]:  # noqa: ANN401 - from the record
    """What blob store and index hold, past the record."""
    blobs, index = await service.container.get(BlobStore), await service.container.get(VectorIndex)
    return [key async for key in blobs.keys("")], [entry.reference async for entry in index.entries(gallery)]


class TestDatabase:
    @pytest.mark.parametrize("elsewhere", ["one machine", "apart"])
    async def test_without_the_record_nothing_is_written_anywhere(  # noqa: PLR0917 - fixtures
        self,
        elsewhere: str,
        tmp_path: Path,
        empty_database_url: str,
        s3: S3Server,
        open_pack_dir: Path,
        embedder: FaceEmbedder,
        astronaut: bytes,
        cast: list[bytes],
    ) -> None:
        backends: dict[str, msgspec.Struct] = (
            {"vector_index": VectorIndexSettings(backend="qdrant", path=tmp_path / "qdrant")}
            if elsewhere == "one machine"
            else {"vector_index": VectorIndexSettings(url=empty_database_url), "blob_store": s3_settings(s3)}
        )
        with own_postgres() as server:
            url = await asyncio.to_thread(server.start)
            await schema.upgrade(url)
            settings = but(settings_for(url, tmp_path, open_pack_dir), **backends)
            async with served(settings, LoadedEmbedder(embedder)) as service:
                client = service.client
                made = (await enrol(client, astronaut, external_id="eileen"))["accepted"][0]
                gallery = (
                    await (await service.container.get(GetGallery))(workspace=service.workspace, gallery="default")
                ).gallery.id
                before = await kept(service, gallery)
                assert [len(held) for held in before] == [1, 1]
                await stop(server)

                is_down(await client.post(REFERENCES, files={"image": cast[0]}, data={"external_id": "new"}))
                is_down(await client.delete(f"{REFERENCES}/{made['id']}"))
                is_down(await client.post("/search", files={"image": astronaut}))
                is_down(await client.post("/verify", files={"image": astronaut}, data={"external_id": "eileen"}))
                assert "database" in await unready(service)
                assert await kept(service, gallery) == before

                await asyncio.to_thread(server.start)
                assert await found(client, astronaut) == ["eileen"]

                async def is_enrolled() -> bool:
                    new = {"files": {"image": cast[0]}, "data": {"external_id": "new"}}
                    return (await client.post(REFERENCES, **new)).status_code == 201

                await until(is_enrolled)
                assert await found(client, cast[0]) == ["new"]
                assert (await agreement(service)).agrees


@final
class Interrupting(BlobStore):
    """A store after whose next write something happens elsewhere."""

    def __init__(self, inner: BlobStore) -> None:
        self._inner: Final = inner
        self.after_put: Callable[[], Awaitable[None]] | None = None

    async def put(self, key: BlobKey, content: bytes) -> None:
        await self._inner.put(key, content)
        happens, self.after_put = self.after_put, None
        if happens is not None:
            await happens()

    async def get(self, key: BlobKey) -> bytes | None:
        return await self._inner.get(key)

    async def remove(self, key: BlobKey) -> None:
        await self._inner.remove(key)

    def keys(self, prefix: str) -> AsyncIterator[BlobKey]:
        return self._inner.keys(prefix)


class Interruptible(Provider):
    @decorate(scope=Scope.APP)
    def its_blobs(self, blobs: BlobStore) -> BlobStore:
        return Interrupting(blobs)


class TestBlobStore:
    async def test_without_it_nobody_is_enrolled_and_the_others_are_found(
        self, settings: Settings, embedder: FaceEmbedder, astronaut: bytes, cast: list[bytes]
    ) -> None:
        with S3Server() as server:
            chosen = but(settings, blob_store=s3_settings(server))
            async with served(chosen, LoadedEmbedder(embedder)) as service:
                client = service.client
                made = (await enrol(client, astronaut, external_id="eileen"))["accepted"][0]
                server.kill()
                is_down(await client.post(REFERENCES, files={"image": cast[0]}, data={"external_id": "new"}))
                assert [one["external_id"] for one in await listed(client, PEOPLE)] == ["eileen"]
                assert [one["id"] for one in await listed(client, REFERENCES)] == [made["id"]]
                assert (await agreement(service)).agrees

                assert await found(client, astronaut) == ["eileen"]
                assert await is_verified(client, astronaut, "eileen")
                is_down(await client.get(f"{REFERENCES}/{made['id']}/image"))
                assert set(await unready(service)) == {"blob_store"}

    async def test_one_that_hangs_is_given_up_before_anybody_is_enrolled(
        self, settings: Settings, embedder: FaceEmbedder, astronaut: bytes
    ) -> None:
        with S3Server() as server:
            chosen = but(settings, blob_store=s3_settings(server))
            async with served(chosen, LoadedEmbedder(embedder)) as service:
                client = service.client
                server.freeze()
                is_down(await client.post(REFERENCES, files={"image": astronaut}, data={"external_id": "eileen"}))
                assert await listed(client, PEOPLE) == await listed(client, REFERENCES) == []
                server.thaw()
                await enrol(client, astronaut, external_id="eileen")
                assert await found(client, astronaut) == ["eileen"]
                assert (await agreement(service)).agrees

    async def test_an_image_whose_enrolment_was_never_committed_is_swept(
        self, settings: Settings, s3: S3Server, embedder: FaceEmbedder, postgres_url: str, astronaut: bytes
    ) -> None:
        url = str(settings.database.url)
        database = str(make_url(url).database)
        chosen = but(settings, blob_store=s3_settings(s3))
        async with served(chosen, LoadedEmbedder(embedder), Interruptible()) as service:
            blobs = await service.container.get(BlobStore)
            assert isinstance(blobs, Interrupting)

            async def record_goes() -> None:
                await execute(postgres_url, f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
                await end_connections(postgres_url, database)

            blobs.after_put = record_goes
            is_down(await service.client.post(REFERENCES, files={"image": astronaut}, data={"external_id": "eileen"}))
            assert len([key async for key in blobs.keys("")]) == 1

            await execute(postgres_url, f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")
            assert await listed(service.client, PEOPLE) == await listed(service.client, REFERENCES) == []
            # An hour passes.
            await execute(url, "UPDATE reconciliations SET due_at = due_at - interval '1 hour'")

            async def swept() -> bool:
                return not [key async for key in blobs.keys("")]

            await until(swept)
            await enrol(service.client, astronaut, external_id="eileen")
            assert await found(service.client, astronaut) == ["eileen"]
