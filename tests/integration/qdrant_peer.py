"""A real HTTP server that speaks as much of Qdrant's REST as the adapter uses; behind it stands local mode."""

import asyncio
import json
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from aiohttp import web
from pydantic import BaseModel
from qdrant_client import AsyncQdrantClient, models

CHECKOUT = Path(__file__).parents[2]
VERSION = {"title": "qdrant - vector search engine", "version": "1.15.1", "commit": None}

Body = dict[str, Any]
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Asked:
    """One request, as it came."""

    what: str
    """Method and path, the collection left out."""
    query: dict[str, str]
    body: Body
    key: str | None


@dataclass
class QdrantPeer:
    """Answers as Qdrant does, notes what it was asked, and lets a test put another answer in between."""

    asked: list[Asked] = field(default_factory=list)
    instead: dict[str, Answer] = field(default_factory=dict)
    """Other answers, by the beginning of `Asked.what`."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        self.local = AsyncQdrantClient(location=":memory:")
        application = web.Application(client_max_size=32 << 20)  # the server's own limit
        application.router.add_route("*", "/{path:.*}", self._answered)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        await self.local.close()

    async def _answered(self, request: web.Request) -> web.StreamResponse:
        asked = Asked(_what(request), dict(request.query), await _body(request), request.headers.get("api-key"))
        self.asked.append(asked)
        answers = (answer for beginning, answer in self.instead.items() if asked.what.startswith(beginning))
        return await next(answers, self.answered_by_local_mode)(request)

    async def answered_by_local_mode(self, request: web.Request) -> web.Response:
        what, collection = _what(request), _collection(request)
        if not collection:
            return web.json_response(VERSION)
        if what not in {"GET /exists", "PUT /", "DELETE /"} and not await self.local.collection_exists(collection):
            return web.json_response({"status": {"error": "Not found"}}, status=404)
        return _result(await _ANSWERS[what](self.local, collection, await _body(request)))


def _collection(request: web.Request) -> str:
    return request.path.removeprefix("/collections/").partition("/")[0].strip("/")


def _what(request: web.Request) -> str:
    collection = _collection(request)
    rest = request.path.removeprefix(f"/collections/{collection}").strip("/")
    return f"{request.method} /{rest}" if collection else f"{request.method} server"


async def _body(request: web.Request) -> Body:
    body: Body = json.loads(await request.read() or "{}")
    return body


# What was asked is read through the models that the client writes with, and done by local mode.


async def _exists(local: AsyncQdrantClient, name: str, _: Body) -> object:
    return {"exists": await local.collection_exists(name)}


async def _made(local: AsyncQdrantClient, name: str, body: Body) -> object:
    asked = models.CreateCollection(**body)
    return await local.create_collection(name, vectors_config=asked.vectors)


async def _shown(local: AsyncQdrantClient, name: str, _: Body) -> object:
    return await local.get_collection(name)


async def _indexed(_: AsyncQdrantClient, __: str, body: Body) -> object:
    models.CreateFieldIndex(**body)
    return _COMPLETED


async def _upserted(local: AsyncQdrantClient, name: str, body: Body) -> object:
    await local.upsert(name, models.PointsList(**body).points)
    return _COMPLETED


async def _retrieved(local: AsyncQdrantClient, name: str, body: Body) -> object:
    asked = models.PointRequest(**body)
    return await local.retrieve(name, asked.ids, asked.with_payload or False, asked.with_vector or False)


async def _deleted(local: AsyncQdrantClient, name: str, body: Body) -> object:
    await local.delete(name, models.FilterSelector(**body) if "filter" in body else models.PointIdsList(**body))
    return _COMPLETED


async def _dropped(local: AsyncQdrantClient, name: str, _: Body) -> object:
    return await local.delete_collection(name)


async def _queried(local: AsyncQdrantClient, name: str, body: Body) -> object:
    asked = models.QueryRequest(**body)
    return await local.query_points(
        name, asked.query, query_filter=asked.filter, limit=asked.limit or 10, with_payload=asked.with_payload or False
    )


async def _scrolled(local: AsyncQdrantClient, name: str, body: Body) -> object:
    asked = models.ScrollRequest(**body)
    records, after = await local.scroll(
        name,
        asked.filter,
        asked.limit or 10,
        offset=asked.offset,
        with_payload=asked.with_payload or False,
        with_vectors=asked.with_vector or False,
    )
    return {"points": [one.model_dump() for one in records], "next_page_offset": after}


_ANSWERS: dict[str, Callable[[AsyncQdrantClient, str, Body], Awaitable[object]]] = {
    "GET /exists": _exists,
    "PUT /": _made,
    "GET /": _shown,
    "DELETE /": _dropped,
    "PUT /index": _indexed,
    "PUT /points": _upserted,
    "POST /points": _retrieved,
    "POST /points/delete": _deleted,
    "POST /points/query": _queried,
    "POST /points/scroll": _scrolled,
}

_COMPLETED = {"operation_id": 0, "status": "completed"}


def _result(result: object) -> web.Response:
    dumped = (
        result.model_dump(mode="json")
        if isinstance(result, BaseModel)
        else [one.model_dump(mode="json") for one in result]
        if isinstance(result, list)
        else result
    )
    return web.json_response({"result": dumped, "status": "ok", "time": 0.0})


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Process, str]]:
    """The same in a process of its own, which can be stopped and killed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.integration.qdrant_peer", cwd=CHECKOUT, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield process, (await process.stdout.readline()).decode().strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@contextmanager
def refusing_url() -> Iterator[str]:
    """An address where every connection is refused."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@contextmanager
def silent_url() -> Iterator[str]:
    """An address where every connection is taken and no request is read, as of a process that stands still."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


async def _serve() -> None:
    async with QdrantPeer() as peer:
        print(peer.url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve())
