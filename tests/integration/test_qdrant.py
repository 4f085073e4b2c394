import asyncio
import json
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web
from qdrant_client import models

from adapters.vector_index import qdrant
from adapters.vector_index.qdrant import QdrantVectorIndex, open_qdrant
from application.conformance.vector_index import SPACE, around, axis, embedding, entry, new_id, vectors, walked
from application.ports.errors import PortBusy, PortRejected, PortUnavailable
from application.ports.ping import Ping
from domain.gallery import GalleryId
from domain.person import PersonId
from entrypoints.settings import Settings, VectorIndexSettings
from entrypoints.wiring.trial import vector_indexes
from tests.integration.qdrant_peer import VERSION, Answer, QdrantPeer, refusing_url, served, silent_url

GALLERY, OTHER_GALLERY = GalleryId(new_id()), GalleryId(new_id())

PATIENCE = 30.0
"""Seconds for what is to come to an end."""


@pytest.fixture
async def peer() -> AsyncIterator[QdrantPeer]:
    async with QdrantPeer() as peer:
        yield peer


@pytest.fixture
async def index(peer: QdrantPeer) -> AsyncIterator[QdrantVectorIndex]:
    async with open_qdrant(SPACE, url=peer.url, timeout=PATIENCE) as index:
        yield index


def answering(status: int, text: str = '{"status":{"error":"no"}}', **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=text, content_type="application/json", headers=headers)

    return answer


# -------------------------------------------------------------------------------------------------- over the wire


async def test_a_collection_is_made_for_galleries_as_tenants(peer: QdrantPeer) -> None:
    async with open_qdrant(SPACE, url=peer.url, shards=3, replicas=2, write_consistency=2):
        pass
    [made] = [asked.body for asked in peer.asked if asked.what == "PUT /"]
    assert made == {
        "vectors": {"size": 32, "distance": "Cosine"},
        "hnsw_config": {"m": 0, "payload_m": 24, "ef_construct": 128, "full_scan_threshold": 2500},
        "shard_number": 3,
        "replication_factor": 2,
        "write_consistency_factor": 2,
    }
    assert [asked.body for asked in peer.asked if asked.what == "PUT /index"] == [
        {"field_name": "gallery", "field_schema": {"type": "uuid", "is_tenant": True}},
        {"field_name": "person", "field_schema": {"type": "uuid"}},
    ]


async def test_what_is_there_is_not_made_again(peer: QdrantPeer, index: QdrantVectorIndex) -> None:
    await index.upsert([entry(axis(0), GALLERY)])
    async with open_qdrant(SPACE, url=peer.url) as again:
        assert len(await walked(again, GALLERY)) == 1
    assert len([asked for asked in peer.asked if asked.what == "PUT /"]) == 1


async def test_two_processes_that_start_at_once_both_start(peer: QdrantPeer) -> None:
    async def made_meanwhile(request: web.Request) -> web.Response:
        peer.instead.clear()
        async with open_qdrant(SPACE, url=peer.url):
            return await answering(409)(request)

    peer.instead["PUT /"] = made_meanwhile
    async with open_qdrant(SPACE, url=peer.url) as index:
        await index.ping()


async def test_writes_are_waited_for_and_searches_bound_to_their_gallery(
    peer: QdrantPeer, index: QdrantVectorIndex
) -> None:
    one, other = entry(axis(0), GALLERY), entry(axis(1), GALLERY)
    await index.upsert([one, other])
    await index.search(one.embedding, gallery=GALLERY, people=1)
    await index.remove([one.reference])
    await index.clear(GALLERY)
    written = [asked for asked in peer.asked if asked.what in {"PUT /points", "POST /points/delete"}]
    assert [asked.query for asked in written] == [{"wait": "true", "ordering": "medium"}] * 3
    searched = [asked.body for asked in peer.asked if asked.what == "POST /points/query"]
    assert searched[0]["params"] == {"hnsw_ef": 200}
    assert all({"key": "gallery", "match": {"value": str(GALLERY)}} in body["filter"]["must"] for body in searched)


async def test_a_large_gallery_is_cleared_in_stretches(
    peer: QdrantPeer, index: QdrantVectorIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qdrant, "_IDS_AT_ONCE", 4)
    await index.upsert([entry(vector, GALLERY) for vector in vectors(10)])
    kept = entry(axis(0), OTHER_GALLERY)
    await index.upsert([kept])
    await index.clear(GALLERY)
    removed = [asked.body["points"] for asked in peer.asked if asked.what == "POST /points/delete"]
    assert [len(points) for points in removed] == [4, 4, 2]
    assert await walked(index, GALLERY) == []
    assert [one.reference for one in await walked(index, OTHER_GALLERY)] == [kept.reference]


async def test_what_was_dropped_is_gone_and_made_anew_by_who_opens_it(
    peer: QdrantPeer, index: QdrantVectorIndex
) -> None:
    await index.upsert([entry(axis(0), GALLERY)])
    for _ in range(2):
        assert await index.drop()
    assert (await peer.local.get_collections()).collections == []
    search = index.search(embedding(axis(0)), gallery=GALLERY, people=1)
    for refused in (index.upsert([entry(axis(0), GALLERY)]), search):
        with pytest.raises(PortRejected, match="missing"):
            await refused
    async with open_qdrant(SPACE, url=peer.url):
        assert list(await index.search(embedding(axis(0)), gallery=GALLERY, people=1)) == []


async def test_the_kit_leaves_no_collection_of_its_own(peer: QdrantPeer) -> None:
    settings = Settings(vector_index=VectorIndexSettings(backend="qdrant", url=peer.url))
    async with vector_indexes(settings) as opens, opens("") as index:
        await index.upsert([entry(axis(0), GALLERY)])
    assert (await peer.local.get_collections()).collections == []


async def test_a_graph_that_ends_early_is_not_the_end_of_the_search(peer: QdrantPeer, index: QdrantVectorIndex) -> None:
    entries = [entry(vector, GALLERY) for vector in vectors(10)]
    await index.upsert(entries)

    async def three(request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        assert body["params"] == {"hnsw_ef": 200}
        peer.instead.clear()
        found = [
            {"id": str(one.reference), "version": 0, "score": 0.9 - 0.1 * place, "payload": {"person": str(one.person)}}
            for place, one in enumerate(entries[:3])
        ]
        return web.json_response({"result": {"points": found}, "status": "ok", "time": 0.0})

    peer.instead["POST /points/query"] = three
    found = await index.search(embedding(axis(0)), gallery=GALLERY, people=10)
    assert {one.reference for one in found} == {one.reference for one in entries}


async def test_crowds_are_searched_in_few_rounds(peer: QdrantPeer) -> None:
    # What two thousand references take on a busy machine is not what is looked at here.
    async with open_qdrant(SPACE, url=peer.url, timeout=PATIENCE) as index:
        crowding = [PersonId(new_id()) for _ in range(10)]
        for place, person in enumerate(crowding):
            await index.upsert([entry(one, GALLERY, person=person) for one in around(axis(place), 200, seed=place)])
        await index.upsert([entry(-axis(0), GALLERY)])
        peer.asked.clear()
        found = await index.search(embedding(axis(0)), gallery=GALLERY, people=11, per_person=3)
        assert len({one.person for one in found}) == 11
        assert len(found) == 31
        limits = [asked.body["limit"] for asked in peer.asked if asked.what == "POST /points/query"]
        assert len(limits) <= 8
        assert max(limits) < 4096  # those who are complete are not looked at again


async def test_what_two_nodes_compute_differently_is_still_a_tie(peer: QdrantPeer, index: QdrantVectorIndex) -> None:
    first, second = entry(axis(0), GALLERY), entry(axis(0), GALLERY)
    await index.upsert([second, first])

    async def a_bit_apart(request: web.Request) -> web.Response:
        body = json.loads((await peer.answered_by_local_mode(request)).body)
        for point in body["result"]["points"]:
            point["score"] = 0.9999998 if point["id"] == str(first.reference) else 0.9999999
        body["result"]["points"].sort(key=lambda point: -point["score"])
        return web.json_response(body)

    peer.instead["POST /points/query"] = a_bit_apart
    found = await index.search(embedding(axis(0)), gallery=GALLERY, people=2)
    assert [(one.reference, one.similarity) for one in found] == [(first.reference, 1.0), (second.reference, 1.0)]


async def test_many_entries_go_in_parts_and_are_repeated_after_a_failure(
    peer: QdrantPeer, index: QdrantVectorIndex
) -> None:
    entries = [entry(vector, GALLERY) for vector in vectors(1500)]

    async def first_alone(request: web.Request) -> web.Response:
        peer.instead["PUT /points"] = answering(500)
        return await peer.answered_by_local_mode(request)

    peer.instead["PUT /points"] = first_alone
    with pytest.raises(PortUnavailable):
        await index.upsert(entries)
    peer.instead.clear()
    assert len(await walked(index, GALLERY)) == 1000
    await index.upsert(entries)
    assert len(await walked(index, GALLERY)) == 1500


async def test_a_key_goes_with_every_request_and_one_in_the_clear_is_warned_about(peer: QdrantPeer) -> None:
    with pytest.warns(UserWarning, match="insecure connection"):
        async with open_qdrant(SPACE, url=peer.url, api_key="made-up"):
            pass
    assert {asked.key for asked in peer.asked} == {"made-up"}


# ------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (400, PortRejected, "refused the request"),
        (401, PortRejected, "API key"),
        (403, PortRejected, "API key"),
        (404, PortRejected, "missing"),
        (408, PortUnavailable, "failed"),
        (413, PortRejected, "size"),
        (429, PortBusy, "limits"),
        (500, PortUnavailable, "failed"),
        (502, PortUnavailable, "failed"),
        (503, PortUnavailable, "failed"),
    ],
)
async def test_statuses_mean_what_they_say(
    peer: QdrantPeer, index: QdrantVectorIndex, status: int, error: type[Exception], words: str
) -> None:
    peer.instead["POST /points/query"] = answering(status)
    with pytest.raises(error, match=words):
        await index.search(embedding(axis(0)), gallery=GALLERY, people=1)


async def test_a_limited_server_says_when_to_come_again(peer: QdrantPeer, index: QdrantVectorIndex) -> None:
    peer.instead["PUT /points"] = answering(429, **{"Retry-After": "7"})
    with pytest.raises(PortBusy) as told:
        await index.upsert([entry(axis(0), GALLERY)])
    assert told.value.retry_after == 7.0


async def test_a_wrong_key_stops_the_start(peer: QdrantPeer) -> None:
    peer.instead["GET /exists"] = answering(401, "Must provide an API key or an Authorization bearer token")
    with pytest.raises(PortRejected, match="API key"):
        async with open_qdrant(SPACE, url=peer.url):
            pass


@pytest.mark.parametrize(
    "vectors_config",
    [
        models.VectorParams(size=64, distance=models.Distance.COSINE),
        models.VectorParams(size=32, distance=models.Distance.DOT),
        {"face": models.VectorParams(size=32, distance=models.Distance.COSINE)},
    ],
    ids=["another dimension", "another distance", "a vector with a name"],
)
async def test_a_collection_with_other_vectors_stops_the_start(
    peer: QdrantPeer, index: QdrantVectorIndex, vectors_config: models.VectorParams
) -> None:
    await peer.local.delete_collection(index._collection)
    await peer.local.create_collection(index._collection, vectors_config=vectors_config)
    with pytest.raises(PortRejected, match="not one of 32 dimensions compared by cosine"):
        async with open_qdrant(SPACE, url=peer.url):
            pass


async def test_an_old_server_stops_the_start(peer: QdrantPeer) -> None:
    peer.instead["GET server"] = answering(200, json.dumps(VERSION | {"version": "1.9.7"}))
    with pytest.raises(PortRejected, match=r"1\.11 is needed, and this server is 1\.9\.7"):
        async with open_qdrant(SPACE, url=peer.url):
            pass


@pytest.mark.parametrize(
    "text", ["<html>Welcome</html>", '{"name": "elasticsearch"}', '{"title": "x", "version": "y"}']
)
async def test_what_is_no_qdrant_stops_the_start(peer: QdrantPeer, text: str) -> None:
    peer.instead["GET server"] = answering(200, text)
    with pytest.raises(PortRejected, match="no Qdrant server"):
        async with open_qdrant(SPACE, url=peer.url):
            pass


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "not a url", "http://::::"])
async def test_an_address_that_is_none_stops_the_start(url: str) -> None:
    with pytest.raises(PortRejected, match="URL"):
        async with open_qdrant(SPACE, url=url):
            pass


async def test_a_server_and_a_folder_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(PortRejected, match="not both"):
        async with open_qdrant(SPACE, url="http://127.0.0.1:1", path=tmp_path):
            pass


# ------------------------------------------------------------------------------------------------ servers that go


async def test_a_server_that_is_not_there_stops_the_start_and_its_address_stays_unsaid() -> None:
    with refusing_url() as url:
        with pytest.raises(PortUnavailable, match="cannot be reached") as told:
            async with open_qdrant(SPACE, url=url):
                pass
        assert "127.0.0.1" not in told.value.message


async def test_a_server_that_takes_connections_and_says_nothing_is_given_up() -> None:
    with silent_url() as url:
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(PortUnavailable, match="in time"):
                async with open_qdrant(SPACE, url=url, timeout=0.3):
                    pass


async def test_a_server_that_trickles_is_given_up(peer: QdrantPeer) -> None:
    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.05)

    async with open_qdrant(SPACE, url=peer.url, timeout=1.0) as index, asyncio.timeout(PATIENCE):
        peer.instead["POST /points/query"] = trickle
        with pytest.raises(PortUnavailable, match="in time"):
            await index.search(embedding(axis(0)), gallery=GALLERY, people=1)


async def test_a_ping_answers_within_its_two_seconds_whatever_the_timeout(peer: QdrantPeer) -> None:
    async def never(_: web.Request) -> web.Response:
        return await asyncio.Future()

    async with open_qdrant(SPACE, url=peer.url, timeout=3600.0) as index:
        await index.ping()
        peer.instead["GET /exists"] = never
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(PortUnavailable, match="in time"):
                await index.ping()


async def test_a_ping_misses_a_collection_that_was_dropped(peer: QdrantPeer, index: QdrantVectorIndex) -> None:
    assert isinstance(index, Ping)
    assert index.name == "vector_index"
    await index.ping()
    await peer.local.delete_collection(index._collection)
    with pytest.raises(PortRejected, match="missing"):
        await index.ping()
    with pytest.raises(PortRejected, match="missing"):
        await index.search(embedding(axis(0)), gallery=GALLERY, people=1)


async def test_a_server_that_stops_and_one_that_is_killed_in_the_middle() -> None:
    async with (
        served() as (process, url),
        open_qdrant(SPACE, url=url, timeout=PATIENCE) as index,
        open_qdrant(SPACE, url=url, timeout=1.0) as hasty,
    ):
        one = entry(axis(0), GALLERY)
        await index.upsert([one])
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(PortUnavailable, match="in time"):
            await hasty.search(one.embedding, gallery=GALLERY, people=1)
        process.send_signal(signal.SIGCONT)
        assert len(await index.search(one.embedding, gallery=GALLERY, people=1)) == 1
        process.send_signal(signal.SIGSTOP)
        searching = asyncio.create_task(index.search(one.embedding, gallery=GALLERY, people=1))
        await asyncio.sleep(0)
        process.kill()
        with pytest.raises(PortUnavailable):
            await searching
        with pytest.raises(PortUnavailable, match="cannot be reached"):
            await index.ping()


# ------------------------------------------------------------------------------------------------------ local mode


async def test_a_folder_keeps_what_was_written_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "qdrant"
    entries = [entry(vector, GALLERY) for vector in vectors(50)]
    async with open_qdrant(SPACE, path=folder) as index:
        await index.upsert(entries)
        await index.remove([entries[0].reference])
        assert folder.stat().st_mode & 0o777 == 0o700
    async with open_qdrant(SPACE, path=folder) as index:
        kept = await walked(index, GALLERY)
        assert [one.reference for one in kept] == [one.reference for one in entries[1:]]
        found = await index.search(entries[7].embedding, gallery=GALLERY, people=1)
        assert found[0].reference == entries[7].reference
        for one, other in zip(kept, entries[1:], strict=True):
            assert np.allclose(one.embedding.vector, other.embedding.vector, atol=1e-6)


async def test_a_folder_in_use_is_refused_and_free_again_afterwards(tmp_path: Path) -> None:
    async with open_qdrant(SPACE, path=tmp_path):
        with pytest.raises(PortRejected, match="another process"):
            async with open_qdrant(SPACE, path=tmp_path):
                pass
    async with open_qdrant(SPACE, path=tmp_path) as index:
        await index.ping()


async def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PortRejected, match="folder"):
        async with open_qdrant(SPACE, path=tmp_path / "file"):
            pass


async def test_local_mode_gives_way_to_others_while_it_writes(tmp_path: Path) -> None:
    async with open_qdrant(SPACE, path=tmp_path) as index:
        writing = asyncio.create_task(index.upsert([entry(vector, GALLERY) for vector in vectors(50)]))
        turns = 0
        while not writing.done():
            await asyncio.sleep(0)
            turns += 1
        assert turns >= 50 // 8


async def test_spaces_have_collections_of_their_own(tmp_path: Path) -> None:
    async with open_qdrant(SPACE, path=tmp_path) as index:
        await index.upsert([entry(axis(0), GALLERY)])
        other = QdrantVectorIndex(index._client, replace(SPACE, digest="d1" * 32, dimension=64), local=True)
        await other.prepare()
        assert await walked(other, GALLERY) == []
        assert len(await walked(index, GALLERY)) == 1
