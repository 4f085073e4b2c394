import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from adapters.embedded.postgres import EmbeddedPostgres
from adapters.persistence import schema
from application.ports.face_embedder import FaceEmbedder
from tests.e2e.calls import PEOPLE, REFERENCES, agreement, enrol, found, is_down, listed, until
from tests.e2e.in_process import InProcess, StandIns, in_process, settings_for
from tests.e2e.wire import encoded


@pytest.fixture
async def service(
    database_url: str, tmp_path: Path, open_pack_dir: Path, embedder: FaceEmbedder
) -> AsyncIterator[InProcess]:
    async with in_process(settings_for(database_url, tmp_path, open_pack_dir), StandIns(embedder)) as running:
        yield running


class TestVectorIndex:
    async def test_without_an_index_faces_are_enrolled_and_verified_and_only_searches_wait(
        self, service: InProcess, astronaut: bytes
    ) -> None:
        client, index = service.client, service.backends.index
        index.down = True
        made = await enrol(client, astronaut, external_id="eileen")
        assert [one["searchable"] for one in made["accepted"]] == [False]
        verified = await client.post("/verify", files={"image": astronaut}, data={"external_id": "eileen"})
        assert verified.json()["verified"] is True
        is_down(await client.post("/search", files={"image": astronaut}))
        batch = {"items": [{"image": encoded(astronaut)}, {"image": encoded(astronaut), "faces": "all"}]}
        answer = await client.post("/search/batch", json=batch)
        assert answer.status_code == 200
        problems = [one["problem"] for one in answer.json()["items"]]
        assert [(one["status"], one["code"]) for one in problems] == [(503, "dependency_unavailable")] * 2

        index.down = False
        reference = f"{REFERENCES}/{made['accepted'][0]['id']}"

        async def searchable() -> bool:
            return bool((await client.get(reference)).json()["searchable"])

        await until(searchable)
        assert await found(client, astronaut) == ["eileen"]
        assert (await agreement(service)).agrees

    async def test_a_face_deleted_without_an_index_is_never_found_again(
        self, service: InProcess, astronaut: bytes, cast: list[bytes]
    ) -> None:
        client, index = service.client, service.backends.index
        gone = await enrol(client, astronaut, external_id="gone")
        erased = await enrol(client, cast[0], external_id="erased")
        index.down = True
        assert (await client.delete(f"{REFERENCES}/{gone['accepted'][0]['id']}")).status_code == 204
        assert (await client.delete(f"{PEOPLE}/{erased['person']['id']}")).status_code == 204
        index.down = False
        # At once, while the index still has them: the record decides.
        assert await found(client, astronaut) == await found(client, cast[0]) == []

        async def agrees() -> bool:
            return (await agreement(service)).agrees

        await until(agrees)
        assert [key async for key in service.backends.blobs.keys("")] == []

    async def test_a_repeated_call_brings_the_index_in_line(self, service: InProcess, astronaut: bytes) -> None:
        client, index = service.client, service.backends.index
        headers = {"Idempotency-Key": "again"}
        index.down = True
        first = await client.post(REFERENCES, files={"image": astronaut}, headers=headers)
        index.down = False
        second = await client.post(REFERENCES, files={"image": astronaut}, headers=headers)
        assert [one.json()["accepted"][0]["searchable"] for one in (first, second)] == [False, True]
        assert first.json()["accepted"][0]["id"] == second.json()["accepted"][0]["id"]
        assert (await agreement(service)).agrees

    async def test_readiness_says_that_it_is_down(self, service: InProcess) -> None:
        service.backends.index.down = True
        async with httpx.AsyncClient(transport=httpx.ASGITransport(service.app), base_url="http://facepass") as nobody:
            answer = await nobody.get("/health/ready")
            assert answer.status_code == 503
            assert answer.json()["checks"]["vector_index"].startswith("dependency_unavailable")
            assert answer.json()["checks"]["database"] == "ok"
            assert (await nobody.get("/health/live")).status_code == 200


class TestBlobStore:
    @pytest.mark.parametrize("puts", [0, 1])
    async def test_without_a_blob_store_nobody_is_half_enrolled(
        self, service: InProcess, astronaut: bytes, puts: int
    ) -> None:
        client, blobs = service.client, service.backends.blobs
        blobs.puts_left = puts
        images = [("image", astronaut), ("image", astronaut)]
        is_down(await client.post(REFERENCES, files=images, data={"external_id": "eileen"}))
        assert await listed(client, PEOPLE) == await listed(client, REFERENCES) == []
        assert (await agreement(service)).agrees

        blobs.puts_left = None
        again = await client.post(REFERENCES, files=images, data={"external_id": "eileen"})
        assert again.status_code == 201
        assert await found(client, astronaut) == ["eileen"]

    async def test_without_a_blob_store_faces_are_verified_and_searched(
        self, service: InProcess, astronaut: bytes
    ) -> None:
        client = service.client
        made = await enrol(client, astronaut, external_id="eileen")
        service.backends.blobs.puts_left = 0
        assert await found(client, astronaut) == ["eileen"]
        verified = await client.post("/verify", files={"image": astronaut}, data={"external_id": "eileen"})
        assert verified.json()["verified"] is True
        is_down(await client.get(f"{REFERENCES}/{made['accepted'][0]['id']}/image"))

    async def test_an_image_that_could_not_be_deleted_is_deleted_later(
        self, service: InProcess, astronaut: bytes
    ) -> None:
        client, blobs = service.client, service.backends.blobs
        made = await enrol(client, astronaut)
        assert len([key async for key in blobs.keys("")]) == 1
        blobs.puts_left = 0
        assert (await client.delete(f"{PEOPLE}/{made['person']['id']}")).status_code == 204
        blobs.puts_left = None

        async def empty() -> bool:
            return not [key async for key in blobs.keys("")]

        await until(empty)


class TestDatabase:
    @pytest.fixture
    def postgres(self) -> Iterator[EmbeddedPostgres]:
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

    async def test_a_database_that_goes_and_comes_back_needs_no_restart(
        self, postgres: EmbeddedPostgres, tmp_path: Path, open_pack_dir: Path, embedder: FaceEmbedder, astronaut: bytes
    ) -> None:
        url = await asyncio.to_thread(postgres.start)
        await schema.upgrade(url)
        async with in_process(settings_for(url, tmp_path, open_pack_dir), StandIns(embedder)) as service:
            client = service.client
            await enrol(client, astronaut, external_id="eileen")
            postgres.stop()
            assert await asyncio.to_thread(postgres.wait_ended, 60.0)

            form = {"files": {"image": astronaut}, "data": {"external_id": "eileen"}}
            is_down(await client.post("/verify", **form))
            is_down(await client.post("/search", files={"image": astronaut}))
            is_down(await client.post(REFERENCES, **form))
            is_down(await client.get(PEOPLE))
            is_down(await client.post(PEOPLE, json={}))
            is_down(await client.delete(f"{PEOPLE}/01a1f9ba-6210-711f-a62a-9f40b20f2bb1"))

            assert await asyncio.to_thread(postgres.start) == url
            assert await found(client, astronaut) == ["eileen"]
            assert (await client.post("/verify", **form)).json()["verified"] is True
            await enrol(client, astronaut, external_id="eileen")
            assert len(await listed(client, REFERENCES)) == 2
            assert (await agreement(service)).agrees
